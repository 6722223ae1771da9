//! Giving a network interface to another network namespace, with its addresses, by netlink.
//!
//! ```text
//!   nlmsghdr   length u32 │ type u16 │ flags u16 │ sequence u32 │ port u32
//!   ifinfomsg  family u8 │ pad u8 │ type u16 │ index i32 │ flags u32 │ change u32     RTM_*LINK
//!   ifaddrmsg  family u8 │ prefix u8 │ flags u8 │ scope u8 │ index u32               RTM_*ADDR
//!   attribute  length u16 │ type u16 │ value, padded to 4
//! ```

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

const ERROR: u16 = 2;
const DONE: u16 = 3;

const HEADER: usize = 16;
const ADDRESS_BODY: usize = 8;
/// The kernel's dumps come in datagrams of at most 32 KiB.
const RECEIVE: usize = 64 << 10;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
const IFF_UP: u32 = 1;

/// An address that an interface keeps when it moves: one that somebody gave it for good, of global scope.
#[derive(Clone, Debug)]
pub struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<u8>,
}

/// The interfaces of one network namespace.
#[derive(Debug)]
pub struct Interfaces(OwnedFd);

impl Interfaces {
    /// Those of the namespace that the calling thread is in now.
    ///
    /// # Errors
    /// What `socket(2)` and `bind(2)` say.
    pub fn here() -> io::Result<Self> {
        // NETLINK_ROUTE is 0.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(fd))
    }

    /// The number of an interface.
    ///
    /// # Errors
    /// `ENODEV` if there is none of that name.
    pub fn index(&self, name: &str) -> io::Result<u32> {
        let mut body = link(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &with_nul(name));
        let answers = self.ask(GET_LINK, REQUEST | ACKNOWLEDGE, &body)?;
        answers.iter().find_map(|answer| index_of(answer, NEW_LINK)).ok_or_else(|| Errno::NODEV.into())
    }

    /// The numbers of all interfaces.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn indexes(&self) -> io::Result<Vec<u32>> {
        let answers = self.ask(GET_LINK, REQUEST | DUMP, &link(0, 0, 0))?;
        Ok(answers.iter().filter_map(|answer| index_of(answer, NEW_LINK)).collect())
    }

    /// The addresses of an interface that it keeps when it moves.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses(&self, index: u32) -> io::Result<Vec<Address>> {
        let answers = self.ask(GET_ADDRESS, REQUEST | DUMP, &[0; ADDRESS_BODY])?;
        Ok(answers.iter().filter_map(|answer| permanent(answer, index)).collect())
    }

    /// Gives the interface to the namespace, where it is called `name`, or by a number in the place of `%d`.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken there; `EINVAL` if it can't be moved.
    pub fn give(&self, index: u32, namespace: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        // A name changes only while it is down.
        self.ask(NEW_LINK, REQUEST | ACKNOWLEDGE, &link(index, 0, IFF_UP))?;
        let mut body = link(index, 0, 0);
        attribute(&mut body, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        attribute(&mut body, IFLA_IFNAME, &with_nul(name));
        self.ask(NEW_LINK, REQUEST | ACKNOWLEDGE, &body).map(|_| ())
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&self, index: u32, address: &Address) -> io::Result<()> {
        let mut body = vec![address.family, address.prefix, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend(&address.attributes);
        match self.ask(NEW_ADDRESS, REQUEST | ACKNOWLEDGE | CREATE | EXCLUSIVE, &body) {
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        self.ask(NEW_LINK, REQUEST | ACKNOWLEDGE, &link(index, IFF_UP, IFF_UP)).map(|_| ())
    }

    /// One request, and all messages up to the end of the answer.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::MSGSIZE)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        send(&self.0, &message, SendFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; RECEIVE];
        loop {
            let (_, length) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some(size) = number(rest, 0).map(|size| size as usize).filter(|size| *size >= HEADER) {
                let Some(one) = rest.get(..size) else { return Err(Errno::BADMSG.into()) };
                match short(one, 4) {
                    Some(ERROR) => {
                        let code = number(one, HEADER).unwrap_or_default().cast_signed();
                        let answer =
                            if code == 0 { Ok(answers) } else { Err(io::Error::from_raw_os_error(-code)) };
                        return answer;
                    }
                    Some(DONE) => return Ok(answers),
                    _ => answers.push(one.to_vec()),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

fn link(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for field in [index, flags, change] {
        body.extend(field.to_ne_bytes());
    }
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn with_nul(name: &str) -> Vec<u8> {
    name.bytes().chain([0]).collect()
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn index_of(message: &[u8], kind: u16) -> Option<u32> {
    if short(message, 4)? == kind { number(message, HEADER + 4) } else { None }
}

/// The address in a message if it is one of this interface, for good and of global scope.
fn permanent(message: &[u8], index: u32) -> Option<Address> {
    let [family, prefix, flags, scope] = *message.get(HEADER..HEADER + 4)?.first_chunk()?;
    if short(message, 4)? != NEW_ADDRESS || number(message, HEADER + 4)? != index || scope != 0 {
        return None;
    }
    let mut flags = u32::from(flags);
    let mut attributes = Vec::new();
    let mut rest = message.get(HEADER + ADDRESS_BODY..)?;
    while let (Some(length), Some(kind)) = (short(rest, 0).map(usize::from), short(rest, 2)) {
        let Some(value) = rest.get(4..length) else { break };
        match kind {
            IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST => attribute(&mut attributes, kind, value),
            IFA_FLAGS => flags = number(value, 0)?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (flags & IFA_F_PERMANENT != 0).then_some(Address { family, prefix, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_there_and_nothing_else_of_a_strange_name() {
        let interfaces = Interfaces::here().unwrap();
        let lo = interfaces.index("lo").unwrap();
        assert!(interfaces.indexes().unwrap().contains(&lo));
        // 127.0.0.1 is of host scope and stays.
        assert!(interfaces.addresses(lo).unwrap().is_empty());
        let missing = interfaces.index("onggi-nosuch").unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(Errno::NODEV.raw_os_error()));
    }
}
