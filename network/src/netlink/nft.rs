//! Tables, chains, rules, sets and elements of nftables (`NETLINK_NETFILTER`, `linux/netfilter/nf_tables.h`).
//!
//! Everything that changes goes in one [`Batch`], which the kernel does as a whole or not at all.
//! A rule is a list of expressions over registers: some load a value, some compare and end the rule
//! where it does not fit, the last one decides. Numbers are in network byte order, but for values of
//! the kernel's own (`meta`, `ct`, `fib`), which are in the host's.

use std::io;

use super::{ACK, APPEND, Attributes, CREATE, DUMP, Requests, Socket, attribute, attributes, text};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM;
const GETTABLE: u16 = SUBSYSTEM | 1;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const GETCHAIN: u16 = SUBSYSTEM | 4;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 0xc;
const GETSETELEM: u16 = SUBSYSTEM | 0xd;
const DELSETELEM: u16 = SUBSYSTEM | 0xe;

/// `NFPROTO_INET`: both versions of IP.
const INET: u8 = 1;
/// nfgenmsg: family, version, resource
const HEADER: [u8; 4] = [INET, 0, 0, 0];

/// Where a chain is hooked in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// What a decided packet meets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict<'a> {
    Accept,
    Drop,
    Jump(&'a str),
    Goto(&'a str),
}

/// Kinds of values, by the numbers that `nft list` knows them by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Type {
    Ipv4 = 7,
    Ipv6 = 8,
    Protocol = 12,
    Port = 13,
    Interface = 41,
}

impl Type {
    /// Bytes in a register; a part of a concatenation is padded to four.
    fn size(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Protocol | Self::Port => 4,
            Self::Ipv6 | Self::Interface => 16,
        }
    }

    fn number(types: &[Self]) -> u32 {
        types.iter().fold(0, |number, one| number << 6 | *one as u32)
    }

    fn length(types: &[Self]) -> u32 {
        types.iter().map(|one| one.size()).sum()
    }
}

/// A set, or a map if it has `data`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set<'a> {
    pub name: &'a str,
    pub key: &'a [Type],
    pub data: &'a [Type],
    pub intervals: bool,
}

/// One element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Element {
    pub key: Vec<u8>,
    pub data: Vec<u8>,
    /// Whether an interval ends before this key.
    pub end: bool,
    /// Shown by `nft list`.
    pub comment: String,
}

/// Several changes as one.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    requests: Requests,
    table: &'a str,
    /// Sets need a number that differs within the batch.
    sets: u32,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(table: &'a str) -> Self {
        let mut requests = Requests::new();
        requests.add(BATCH_BEGIN, 0, &batch_header(), |_| {});
        Self { requests, table, sets: 0 }
    }

    /// Does it all. Any failure undoes the rest.
    pub(crate) fn commit(mut self, socket: &mut Socket) -> io::Result<()> {
        // The last change asks for an answer: without one, success would be silence.
        self.requests.add(NEWTABLE, ACK, &HEADER, |list| list.text(1, self.table));
        self.requests.add_unanswered_end(BATCH_END, &batch_header());
        socket.transact(&self.requests).map_err(|(_, error)| error)
    }

    pub(crate) fn add_table(&mut self) {
        self.requests.add(NEWTABLE, CREATE, &HEADER, |list| list.text(1, self.table));
    }

    pub(crate) fn delete_table(&mut self) {
        self.requests.add(DELTABLE, 0, &HEADER, |list| list.text(1, self.table));
    }

    /// A chain that others jump to.
    pub(crate) fn add_chain(&mut self, name: &str) {
        self.requests.add(NEWCHAIN, CREATE, &HEADER, |list| {
            list.text(1, self.table);
            list.text(3, name);
        });
    }

    /// A chain that packets come by; those that it doesn't decide go on.
    pub(crate) fn add_base_chain(&mut self, name: &str, kind: &str, hook: Hook, priority: i32) {
        self.requests.add(NEWCHAIN, CREATE, &HEADER, |list| {
            list.text(1, self.table);
            list.text(3, name);
            list.nest(4, |inner| {
                inner.be32(1, hook as u32);
                inner.bytes(2, &priority.to_be_bytes());
            });
            list.be32(5, 1);
            list.text(7, kind);
        });
    }

    pub(crate) fn add_set(&mut self, set: &Set<'_>) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        self.sets += 1;
        let flags = if set.intervals { INTERVAL } else { 0 } | if set.data.is_empty() { 0 } else { MAP };
        self.requests.add(NEWSET, CREATE, &HEADER, |list| {
            list.text(1, self.table);
            list.text(2, set.name);
            list.be32(3, flags);
            list.be32(4, Type::number(set.key));
            list.be32(5, Type::length(set.key));
            if !set.data.is_empty() {
                list.be32(6, Type::number(set.data));
                list.be32(7, Type::length(set.data));
            }
            list.be32(10, self.sets);
        });
    }

    pub(crate) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, CREATE, set, elements);
    }

    pub(crate) fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        const INTERVAL_END: u32 = 1;
        /// Elements of a message: an attribute has at most 64 KiB.
        const AT_ONCE: usize = 200;
        for part in elements.chunks(AT_ONCE) {
            self.requests.add(kind, flags, &HEADER, |list| {
                list.text(1, self.table);
                list.text(2, set);
                list.nest(3, |all| {
                    for element in part {
                        all.nest(1, |one| {
                            one.nest(1, |key| key.bytes(1, &element.key));
                            if !element.data.is_empty() {
                                one.nest(2, |data| data.bytes(1, &element.data));
                            }
                            if element.end {
                                one.be32(3, INTERVAL_END);
                            }
                            if !element.comment.is_empty() {
                                one.bytes(6, &comment(&element.comment));
                            }
                        });
                    }
                });
            });
        }
    }

    pub(crate) fn add_rule(&mut self, chain: &str, about: &str, fill: impl FnOnce(&mut Rule<'_, '_>)) {
        self.requests.add(NEWRULE, CREATE | APPEND, &HEADER, |list| {
            list.text(1, self.table);
            list.text(2, chain);
            list.nest(4, |expressions| fill(&mut Rule(expressions)));
            list.bytes(7, &comment(about));
        });
    }
}

impl Requests {
    fn add_unanswered_end(&mut self, kind: u16, fixed: &[u8]) {
        self.add(kind, 0, fixed, |_| {});
    }
}

/// nfgenmsg of the frame around a batch: the resource is the subsystem.
fn batch_header() -> [u8; 4] {
    [0, 0, 0, 10]
}

/// User data that `nft list` shows as a comment: type, length, text, NUL.
fn comment(words: &str) -> Vec<u8> {
    let words = &words.as_bytes()[..words.len().min(120)];
    let length = u8::try_from(words.len() + 1).unwrap_or(u8::MAX);
    [&[0, length], words, &[0]].concat()
}

/// A first register of four bytes; the others follow.
pub(crate) const R0: u32 = 8;

/// Expressions of one rule.
#[derive(Debug)]
pub(crate) struct Rule<'a, 'b>(&'a mut Attributes<'b>);

impl Rule<'_, '_> {
    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.0.nest(1, |expression| {
            expression.text(1, name);
            expression.nest(2, fill);
        });
        self
    }

    fn compare(&mut self, register: u32, equal: bool, value: &[u8]) -> &mut Self {
        self.add("cmp", |list| {
            list.be32(1, register);
            list.be32(2, u32::from(!equal));
            list.nest(3, |data| data.bytes(1, value));
        })
    }

    fn meta(&mut self, key: u32, register: u32) -> &mut Self {
        self.add("meta", |list| {
            list.be32(1, register);
            list.be32(2, key);
        })
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) -> &mut Self {
        self.add("payload", |list| {
            list.be32(1, register);
            list.be32(2, base);
            list.be32(3, offset);
            list.be32(4, length);
        })
    }

    /// The name of the interface that it came in by begins with this.
    pub(crate) fn enters_by(&mut self, prefix: &str) -> &mut Self {
        self.meta(6, R0).compare(R0, true, prefix.as_bytes())
    }

    /// The name of the interface that it goes out by begins with this, or does not.
    pub(crate) fn leaves_by(&mut self, prefix: &str, wanted: bool) -> &mut Self {
        self.meta(7, R0).compare(R0, wanted, prefix.as_bytes())
    }

    /// Loads the names of both interfaces.
    pub(crate) fn interfaces(&mut self) -> &mut Self {
        self.meta(6, R0).meta(7, R0 + 4)
    }

    /// Loads the name of the interface that it came in by.
    pub(crate) fn interface(&mut self) -> &mut Self {
        self.meta(6, R0)
    }

    /// Only this version of IP.
    pub(crate) fn version(&mut self, ipv4: bool) -> &mut Self {
        self.meta(15, R0).compare(R0, true, &[if ipv4 { 2 } else { 10 }])
    }

    /// Only addresses that begin with these bytes.
    pub(crate) fn ipv4_begins(&mut self, destination: bool, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        self.payload(1, if destination { 16 } else { 12 }, length, R0).compare(R0, true, bytes)
    }

    /// Loads the source address.
    pub(crate) fn source(&mut self, ipv4: bool) -> &mut Self {
        if ipv4 { self.payload(1, 12, 4, R0) } else { self.payload(1, 8, 16, R0) }
    }

    /// Loads protocol, destination address if wanted, and destination port.
    pub(crate) fn service(&mut self, ipv4: bool, with_address: bool) -> &mut Self {
        self.meta(16, R0);
        let port = match (with_address, ipv4) {
            (false, _) => R0 + 1,
            (true, true) => {
                self.payload(1, 16, 4, R0 + 1);
                R0 + 2
            }
            (true, false) => {
                self.payload(1, 24, 16, R0 + 1);
                R0 + 5
            }
        };
        self.payload(2, 2, 2, port)
    }

    /// Only what goes to an address of this host.
    pub(crate) fn is_for_this_host(&mut self) -> &mut Self {
        const DESTINATION: u32 = 2;
        const ADDRESS_TYPE: u32 = 3;
        const LOCAL: u32 = 2;
        self.add("fib", |list| {
            list.be32(1, R0);
            list.be32(2, ADDRESS_TYPE);
            list.be32(3, DESTINATION);
        });
        self.compare(R0, true, &LOCAL.to_ne_bytes())
    }

    /// Only what is in the set.
    pub(crate) fn is_in(&mut self, set: &str) -> &mut Self {
        self.add("lookup", |list| {
            list.text(1, set);
            list.be32(2, R0);
        })
    }

    /// Only what has an entry in the map, which is loaded.
    pub(crate) fn look_up(&mut self, map: &str) -> &mut Self {
        self.add("lookup", |list| {
            list.text(1, map);
            list.be32(2, R0);
            list.be32(3, R0);
        })
    }

    /// Only connections with one of these bits: `state` 2 established, 4 related; `status` 32 redirected.
    fn connection(&mut self, key: u32, bits: u32) -> &mut Self {
        self.add("ct", |list| {
            list.be32(1, R0);
            list.be32(2, key);
        });
        self.and_xor(bits, 0).compare(R0, false, &[0; 4])
    }

    /// Only packets with this bit in their mark.
    pub(crate) fn marked(&mut self, bit: u32) -> &mut Self {
        self.meta(3, R0).and_xor(bit, 0).compare(R0, false, &[0; 4])
    }

    /// Sets a bit in the packet's mark.
    pub(crate) fn mark(&mut self, bit: u32) {
        self.meta(3, R0).and_xor(!bit, bit);
        self.add("meta", |list| {
            list.be32(3, R0);
            list.be32(2, 3);
        });
    }

    fn and_xor(&mut self, mask: u32, xor: u32) -> &mut Self {
        self.add("bitwise", |list| {
            list.be32(1, R0);
            list.be32(2, R0);
            list.be32(3, 4);
            list.nest(4, |data| data.bytes(1, &mask.to_ne_bytes()));
            list.nest(5, |data| data.bytes(1, &xor.to_ne_bytes()));
        })
    }

    /// Only what belongs to a connection that was let through.
    pub(crate) fn established(&mut self) -> &mut Self {
        self.connection(0, 2 | 4)
    }

    /// Only connections whose destination was changed.
    pub(crate) fn redirected(&mut self) -> &mut Self {
        self.connection(2, 1 << 5)
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict<'_>) {
        let (code, chain): (i32, _) = match verdict {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
        };
        self.add("immediate", |list| {
            list.be32(1, 0);
            list.nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.bytes(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.text(2, chain);
                    }
                });
            });
        });
    }

    /// Sends it to the address and port that [`look_up`](Self::look_up) loaded.
    pub(crate) fn redirect(&mut self, ipv4: bool) {
        const DNAT: u32 = 1;
        self.add("nat", |list| {
            list.be32(1, DNAT);
            list.be32(2, if ipv4 { 2 } else { 10 });
            list.be32(3, R0);
            list.be32(5, if ipv4 { R0 + 1 } else { R0 + 4 });
        });
    }

    /// Gives it the address of the interface that it goes out by.
    pub(crate) fn masquerade(&mut self) {
        self.add("masq", |_| {});
    }
}

impl Socket {
    /// Whether the table exists.
    pub(crate) fn has_table(&mut self, table: &str) -> io::Result<bool> {
        let mut request = Requests::new();
        request.add(GETTABLE, ACK, &HEADER, |list| list.text(1, table));
        found(self.ask(&request)).map(|found| found.is_some())
    }

    /// How many rules each chain of the table has, by the chain's name.
    pub(crate) fn rules(&mut self, table: &str) -> io::Result<Vec<(String, String)>> {
        let mut request = Requests::new();
        request.add(GETRULE, DUMP, &HEADER, |list| list.text(1, table));
        let answers = found(self.ask(&request))?.unwrap_or_default();
        let rule = |body: &[u8]| {
            let list = body.get(4..)?;
            // Older kernels give the rules of all tables.
            (attribute(list, 1).map(text)? == table).then(|| {
                let about = attribute(list, 7).and_then(read_comment).unwrap_or_default();
                (attribute(list, 2).map(text).unwrap_or_default(), about)
            })
        };
        Ok(answers.iter().filter_map(|answer| rule(&answer.body)).collect())
    }

    /// The elements of a set of the table; none if there is no such set.
    pub(crate) fn elements(&mut self, table: &str, set: &str) -> io::Result<Vec<Element>> {
        let mut request = Requests::new();
        request.add(GETSETELEM, DUMP, &HEADER, |list| {
            list.text(1, table);
            list.text(2, set);
        });
        let answers = found(self.ask(&request))?.unwrap_or_default();
        let lists = answers.iter().filter_map(|answer| attribute(answer.body.get(4..)?, 3));
        Ok(lists.flat_map(attributes).map(|(_, one)| read_element(one)).collect())
    }

    /// Chains of other tables that drop what is forwarded and that nothing lets through, as
    /// `FAMILY TABLE CHAIN`.
    pub(crate) fn forward_drops(&mut self, own: &str) -> io::Result<Vec<String>> {
        let mut request = Requests::new();
        // All families.
        request.add(GETCHAIN, DUMP, &[0; 4], |_| {});
        let answers = found(self.ask(&request))?.unwrap_or_default();
        let chain = |body: &[u8]| {
            let (header, list) = body.split_at_checked(4)?;
            let (table, name) = (attribute(list, 1).map(text)?, attribute(list, 3).map(text)?);
            let hook = attribute(attribute(list, 4)?, 1).map(be32)?;
            let policy = attribute(list, 5).map(be32)?;
            let family = match header[0] {
                1 => "inet",
                2 => "ip",
                10 => "ip6",
                _ => return None,
            };
            (hook == Hook::Forward as u32 && policy == 0 && table != own)
                .then(|| format!("{family} {table} {name}"))
        };
        Ok(answers.iter().filter_map(|answer| chain(&answer.body)).collect())
    }
}

fn be32(value: &[u8]) -> u32 {
    u32::from_be_bytes(super::first_four(value))
}

fn read_element(one: &[u8]) -> Element {
    let value = |kind| attribute(one, kind).and_then(|nest| attribute(nest, 1)).unwrap_or_default().to_vec();
    Element {
        key: value(1),
        data: value(2),
        end: attribute(one, 3).map(be32).unwrap_or_default() & 1 != 0,
        comment: attribute(one, 6).and_then(read_comment).unwrap_or_default(),
    }
}

fn read_comment(data: &[u8]) -> Option<String> {
    let (header, rest) = data.split_at_checked(2)?;
    (header[0] == 0).then(|| text(&rest[..rest.len().min(usize::from(header[1]))]))
}

/// `None` for what does not exist.
fn found<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
