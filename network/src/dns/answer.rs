//! What a resolver knows itself: names, aliases and short IDs of the containers that share a network
//! with its own, and the way back from addresses to names.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, rdata};

use super::ResolverWish;
use crate::definition::Definition;
use crate::endpoint::Endpoint;
use crate::networks::{Bridges, Networks};

/// How long others may remember an answer: containers come and go.
const TTL: u32 = 5;

/// What to do with a query.
#[derive(Debug)]
pub(super) enum Reply {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Others know.
    Forward,
    /// No query at all.
    Ignore,
}

/// Who can be called by which name.
#[derive(Debug)]
pub(super) struct Names {
    networks: Networks,
    definitions: PathBuf,
    container: String,
    /// The container's networks and everybody in them, as of `seen`.
    known: Vec<(Definition, Vec<Endpoint>)>,
    seen: Option<HashMap<PathBuf, Option<SystemTime>>>,
    /// Turns answers with several addresses.
    turn: usize,
}

impl Names {
    pub(super) fn new(wish: &ResolverWish) -> Self {
        Self {
            networks: Networks::new(&wish.root, &wish.runroot, Bridges::Nowhere),
            definitions: wish.root.join("networks"),
            container: wish.container.clone(),
            known: Vec::new(),
            seen: None,
            turn: 0,
        }
    }

    /// Reads the files again if any of their directories changed.
    fn refresh(&mut self) {
        let current = |path: &PathBuf| fs::metadata(path).and_then(|data| data.modified()).ok();
        let fresh =
            self.seen.as_ref().is_some_and(|seen| seen.iter().all(|(path, time)| current(path) == *time));
        if fresh {
            return;
        }
        // Times first: what changes while the files are read is seen the next time.
        let all = self.networks.all().unwrap_or_default();
        let paths =
            all.iter().map(|network| self.networks.records(network)).chain([self.definitions.clone()]);
        self.seen = Some(paths.map(|path| (path.clone(), current(&path))).collect());
        let joined = all.into_iter().filter(Definition::has_names);
        self.known = joined
            .filter_map(|network| Some((self.networks.endpoints(&network).ok()?, network)))
            .filter(|(endpoints, _)| endpoints.iter().any(|one| one.container == self.container))
            .map(|(endpoints, network)| (network, endpoints))
            .collect();
    }

    /// The answer to a query, of at most `limit` bytes.
    pub(super) fn answer(&mut self, query: &[u8], limit: Option<usize>) -> Reply {
        let Ok(message) = Message::from_vec(query) else { return Reply::Ignore };
        if message.metadata.message_type != MessageType::Query {
            return Reply::Ignore;
        }
        let [question] = &message.queries[..] else { return Reply::Forward };
        if message.metadata.op_code != OpCode::Query || question.query_class() != DNSClass::IN {
            return Reply::Forward;
        }
        self.refresh();
        let name = question.name();
        let answers = match question.query_type() {
            RecordType::PTR => self.reverse(name),
            kind => self.forward(name, kind),
        };
        let outcome = match answers {
            Some(answers) => Ok(answers),
            None if self.may_ask_others() => return Reply::Forward,
            None => Err(ResponseCode::NXDomain),
        };
        let mut response = Message::response(message.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = message.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.response_code = outcome.as_ref().err().copied().unwrap_or(ResponseCode::NoError);
        response.add_query(question.clone());
        response.add_answers(outcome.unwrap_or_default());
        let bytes = match (response.to_vec(), limit) {
            (Ok(bytes), Some(limit))
                if bytes.len() > limit.min(usize::from(message.max_payload().max(512))) =>
            {
                response.truncate().to_vec()
            }
            (bytes, _) => bytes,
        };
        bytes.map_or(Reply::Ignore, Reply::Answer)
    }

    /// A container that has only internal networks gets no word out, also not as a name.
    fn may_ask_others(&self) -> bool {
        self.known.is_empty() || self.known.iter().any(|(network, _)| !network.internal)
    }

    /// Addresses of a name; `None` if nobody here has it.
    fn forward(&mut self, name: &Name, kind: RecordType) -> Option<Vec<Record>> {
        let text = name.to_ascii().to_ascii_lowercase();
        let text = text.strip_suffix('.').unwrap_or(&text);
        let mut found: Vec<IpAddr> = Vec::new();
        let mut known = false;
        for (network, endpoints) in &self.known {
            let qualified =
                text.strip_suffix(&network.name.to_ascii_lowercase()).and_then(|rest| rest.strip_suffix('.'));
            let called = |one: &&Endpoint| {
                one.answers_to(text) || qualified.is_some_and(|short| one.answers_to(short))
            };
            for endpoint in endpoints.iter().filter(called) {
                known = true;
                found.extend(&endpoint.addresses);
            }
        }
        if !known {
            return None;
        }
        let data = |address: &IpAddr| match (address, kind) {
            (IpAddr::V4(address), RecordType::A) => Some(RData::A(rdata::A(*address))),
            (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA(rdata::AAAA(*address))),
            _ => None,
        };
        let mut records: Vec<Record> =
            found.iter().filter_map(data).map(|data| Record::from_rdata(name.clone(), TTL, data)).collect();
        if !records.is_empty() {
            self.turn = self.turn.wrapping_add(1);
            let middle = self.turn % records.len();
            records.rotate_left(middle);
        }
        Some(records)
    }

    /// The name of an address; `None` if it is of none of these networks.
    fn reverse(&self, name: &Name) -> Option<Vec<Record>> {
        let wanted = name.parse_arpa_name().ok()?;
        // A whole address, not a part of the tree.
        let full = if wanted.addr().is_ipv4() { 32 } else { 128 };
        let address = (wanted.prefix_len() == full).then(|| wanted.addr())?;
        self.known.iter().find_map(|(network, endpoints)| {
            let endpoint = endpoints.iter().find(|one| one.addresses.contains(&address))?;
            let target = Name::from_ascii(format!("{}.{}.", endpoint.name, network.name)).ok()?;
            Some(vec![Record::from_rdata(name.clone(), TTL, RData::PTR(rdata::PTR(target)))])
        })
    }
}
