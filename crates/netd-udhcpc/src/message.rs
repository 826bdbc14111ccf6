//! DHCP messages: bytes from the wire -> `Reply`, `Outgoing` -> bytes.
//!
//! Pure. This is the trust boundary: what a peer sent is bounded by the bytes received, the cookie,
//! op, htype, hlen and chaddr are checked, every option is judged alone and the same code is joined
//! wherever it stands (RFC 3396). It does not judge what the values mean (lease.rs does) nor
//! whether a reply is ours to take (client.rs does). Called by daemon.rs with the payload that
//! frame.rs found.

use std::fmt;
use std::net::Ipv4Addr;

use crate::options::{
    CLIENT_ID, END, FQDN, MAX_SIZE, MESSAGE_TYPE, OVERLOAD, PAD, PARAMETERS, RAPID_COMMIT, REQUESTED_IP, ROUTER,
    SERVER_ID,
};

/// RFC 2131 section 2: fixed part up to the options.
const FIXED_LEN: usize = 236;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];
/// RFC 1542 section 2.1: relays and servers may drop a BOOTP message that is shorter.
const MIN_LEN: usize = 300;
const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
const HTYPE_ETHERNET: u8 = 1;
const HLEN_ETHERNET: u8 = 6;
const BROADCAST_FLAG: u16 = 0x8000;
/// What udhcpc says that it can take (RFC 2132 section 9.10), the smallest value allowed.
const MIN_MAX_MESSAGE: u16 = 576;
/// What fits into a frame of Ethernet behind the headers of IP and UDP.
const MAX_MAX_MESSAGE: u16 = 1472;

/// Option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// 1
    Discover,
    /// 2
    Offer,
    /// 3
    Request,
    /// 4
    Decline,
    /// 5
    Ack,
    /// 6
    Nak,
    /// 7
    Release,
}

impl MessageType {
    fn code(self) -> u8 {
        match self {
            MessageType::Discover => 1,
            MessageType::Offer => 2,
            MessageType::Request => 3,
            MessageType::Decline => 4,
            MessageType::Ack => 5,
            MessageType::Nak => 6,
            MessageType::Release => 7,
        }
    }

    /// The types that a server sends. FORCERENEW (9) is not among them: a client cannot tell who
    /// sent it (CVE-2020-13529).
    fn from_server(code: u8) -> Option<MessageType> {
        [MessageType::Offer, MessageType::Ack, MessageType::Nak].into_iter().find(|t| t.code() == code)
    }
}

/// Why a payload is not a reply for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than the fixed part and the cookie.
    Short,
    /// Not a BOOTREPLY.
    Op,
    /// Not Ethernet with 6-byte addresses.
    Hardware,
    /// For another station.
    Chaddr,
    /// BOOTP without the DHCP cookie.
    Cookie,
    /// Option 53 missing, of a wrong length, or not a server's.
    Type,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DecodeError::Short => "too short for DHCP",
            DecodeError::Op => "not a reply",
            DecodeError::Hardware => "not for Ethernet",
            DecodeError::Chaddr => "for another station",
            DecodeError::Cookie => "BOOTP, not DHCP",
            DecodeError::Type => "not an offer, ack or nak",
        })
    }
}

/// One option after joining.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Opt {
    code: u8,
    data: Vec<u8>,
    /// Length of the first piece: a server that sends a whole fixed-size option twice meant it
    /// once.
    first: usize,
}

/// A well-formed server's message for our MAC; its values are still a stranger's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Offer, Ack or Nak.
    pub kind: MessageType,
    /// Transaction id.
    pub xid: u32,
    /// The address for us.
    pub yiaddr: Ipv4Addr,
    /// Next server.
    pub siaddr: Ipv4Addr,
    /// Relay.
    pub giaddr: Ipv4Addr,
    /// `sname` field up to its first NUL; empty when it held options.
    pub sname: Vec<u8>,
    /// `file` field up to its first NUL; empty when it held options.
    pub file: Vec<u8>,
    options: Vec<Opt>,
}

impl Reply {
    /// An option's bytes, joined.
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.iter().find(|o| o.code == code).map(|o| o.data.as_slice())
    }

    /// Replaces an option's bytes; without any it is gone.
    pub fn set(&mut self, code: u8, data: Vec<u8>) {
        self.options.retain(|o| o.code != code || !data.is_empty());
        if let Some(opt) = self.options.iter_mut().find(|o| o.code == code) {
            opt.first = data.len();
            opt.data = data;
        }
    }

    /// An option of exactly `N` bytes.
    pub fn fixed<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        let opt = self.options.iter().find(|o| o.code == code)?;
        let data = if opt.first == N { opt.data.get(..N)? } else { &opt.data };
        data.try_into().ok()
    }

    /// An option that is one address.
    pub fn ip(&self, code: u8) -> Option<Ipv4Addr> {
        self.fixed::<4>(code).map(Ipv4Addr::from)
    }

    /// The first router of option 3.
    pub fn router(&self) -> Option<Ipv4Addr> {
        self.option(ROUTER)?.first_chunk().copied().map(Ipv4Addr::from)
    }

    /// An option that is one 32-bit number.
    pub fn number(&self, code: u8) -> Option<u32> {
        self.fixed::<4>(code).map(u32::from_be_bytes)
    }

    /// All options in the order of their first appearance; 52 is not among them.
    pub fn options(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.options.iter().map(|o| (o.code, o.data.as_slice()))
    }
}

/// Reads the payload of a UDP datagram as a reply for the station `mac`.
pub fn decode(bytes: &[u8], mac: [u8; 6]) -> Result<Reply, DecodeError> {
    let (fixed, rest) = bytes.split_at_checked(FIXED_LEN).ok_or(DecodeError::Short)?;
    let main = match rest.split_first_chunk::<4>() {
        Some((cookie, main)) if *cookie == COOKIE => main,
        Some(_) => return Err(DecodeError::Cookie),
        None => return Err(DecodeError::Short),
    };
    match fixed {
        [BOOTREPLY, HTYPE_ETHERNET, HLEN_ETHERNET, ..] => {}
        [BOOTREPLY, ..] => return Err(DecodeError::Hardware),
        _ => return Err(DecodeError::Op),
    }
    if fixed.get(28..34) != Some(mac.as_slice()) {
        return Err(DecodeError::Chaddr);
    }
    let sname = fixed.get(44..108).unwrap_or_default();
    let file = fixed.get(108..FIXED_LEN).unwrap_or_default();
    let mut options = Vec::new();
    walk(main, &mut options);
    // RFC 2131 section 4.1: the order is options, file, sname. Only the main area may say so, and
    // each is read once (CVE-2014-6060: an overload option inside the overloaded fields).
    let overload = take_overload(&mut options);
    if overload & 1 != 0 {
        walk(file, &mut options);
    }
    if overload & 2 != 0 {
        walk(sname, &mut options);
    }
    take_overload(&mut options);
    let mut reply = Reply {
        kind: MessageType::Nak,
        xid: u32::from_be_bytes(word(fixed, 4)),
        yiaddr: word(fixed, 16).into(),
        siaddr: word(fixed, 20).into(),
        giaddr: word(fixed, 24).into(),
        sname: if overload & 2 == 0 { until_nul(sname) } else { Vec::new() },
        file: if overload & 1 == 0 { until_nul(file) } else { Vec::new() },
        options,
    };
    let kind = reply.fixed::<1>(MESSAGE_TYPE).and_then(|[code]| MessageType::from_server(code));
    reply.kind = kind.ok_or(DecodeError::Type)?;
    Ok(reply)
}

fn word(bytes: &[u8], at: usize) -> [u8; 4] {
    bytes.get(at..at + 4).and_then(|w| w.try_into().ok()).unwrap_or_default()
}

fn until_nul(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec()
}

/// Reads one area. END may be missing; a last option that is longer than the area is ignored.
fn walk(mut area: &[u8], options: &mut Vec<Opt>) {
    while let Some((&code, rest)) = area.split_first() {
        area = match code {
            PAD => rest,
            END => return,
            _ => {
                let Some((&len, rest)) = rest.split_first() else { return };
                let Some((data, rest)) = rest.split_at_checked(usize::from(len)) else { return };
                join(options, code, data);
                rest
            }
        };
    }
}

/// RFC 3396: all pieces with the same code are one option. An empty option has no meaning and is
/// dropped, except for rapid commit, which is always empty (RFC 4039 section 4).
fn join(options: &mut Vec<Opt>, code: u8, data: &[u8]) {
    if data.is_empty() && code != RAPID_COMMIT {
        return;
    }
    match options.iter_mut().find(|o| o.code == code) {
        Some(opt) => opt.data.extend_from_slice(data),
        None => options.push(Opt { code, data: data.to_vec(), first: data.len() }),
    }
}

fn take_overload(options: &mut Vec<Opt>) -> u8 {
    let found = options.iter().position(|o| o.code == OVERLOAD).map(|at| options.remove(at));
    found.and_then(|o| o.data.first().copied()).filter(|v| (1..=3).contains(v)).unwrap_or(0)
}

/// The part that all our messages share: options from the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Parameter request list (55), sorted; empty: none is sent.
    pub parameters: Vec<u8>,
    /// `-x`, `-F`, vendor class and client id, by code.
    pub extra: Vec<(u8, Vec<u8>)>,
    /// Whether 61 is `01 MAC` (not with `-C`, nor when `extra` has one).
    pub default_client_id: bool,
    /// `-B`.
    pub broadcast: bool,
    /// Option 57 in bytes; 576 at least, as udhcpc has it.
    pub max_message: u16,
    /// `--anonymous`: nothing but what the exchange needs, in an order that says nothing.
    pub anonymous: bool,
}

impl Template {
    /// Option 61 of all our messages; `None`: none is sent.
    fn client_id(&self, mac: [u8; 6]) -> Option<Vec<u8>> {
        let given = self.extra.iter().find(|(code, _)| *code == CLIENT_ID).map(|(_, id)| id.clone());
        given.or_else(|| self.default_client_id.then(|| [&[HTYPE_ETHERNET], mac.as_slice()].concat()))
    }

    /// RFC 6842 section 3: a server that returns a client identifier returns ours (once or twice).
    /// Any other is for another client, which may well have our Ethernet address.
    pub fn is_answered_by(&self, reply: &Reply, mac: [u8; 6]) -> bool {
        match (self.client_id(mac), reply.option(CLIENT_ID)) {
            (Some(ours), Some(theirs)) => theirs.chunks(ours.len().max(1)).all(|id| id == ours),
            (None, _) | (_, None) => true,
        }
    }
}

/// A message to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Discover, Request, Decline or Release.
    pub kind: MessageType,
    /// Transaction id.
    pub xid: u32,
    /// Seconds since the transaction began.
    pub secs: u16,
    /// Our address while we may use it, else 0.0.0.0.
    pub ciaddr: Ipv4Addr,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Option 80.
    pub rapid_commit: bool,
    /// The answer is to be broadcast, also without `-B`.
    pub broadcast: bool,
}

impl Outgoing {
    /// The bytes: 53, 50, 54, 57, 55, then the rest ascending, padded to the least BOOTP length.
    pub fn encode(&self, mac: [u8; 6], template: &Template) -> Vec<u8> {
        let mut out = Vec::with_capacity(MIN_LEN + 64);
        out.extend([BOOTREQUEST, HTYPE_ETHERNET, HLEN_ETHERNET, 0]);
        out.extend(self.xid.to_be_bytes());
        out.extend(self.secs.to_be_bytes());
        // RFC 2131 table 5: a farewell has no flags.
        let broadcast = (self.broadcast || template.broadcast) && self.ciaddr.is_unspecified() && !self.is_farewell();
        out.extend(if broadcast { BROADCAST_FLAG } else { 0 }.to_be_bytes());
        out.extend(self.ciaddr.octets());
        out.extend([0; 12]); // yiaddr, siaddr, giaddr
        out.extend(mac);
        out.resize(FIXED_LEN, 0);
        out.extend(COOKIE);
        for (code, data) in self.options(mac, template) {
            put(&mut out, code, &data);
        }
        out.push(END);
        if out.len() < MIN_LEN {
            out.resize(MIN_LEN, PAD);
        }
        out
    }

    /// A message that is not answered.
    fn is_farewell(&self) -> bool {
        matches!(self.kind, MessageType::Release | MessageType::Decline)
    }

    /// All options in their order.
    fn options(&self, mac: [u8; 6], template: &Template) -> Vec<(u8, Vec<u8>)> {
        let farewell = self.is_farewell();
        let mut out = vec![(MESSAGE_TYPE, vec![self.kind.code()])];
        out.extend(self.requested.map(|ip| (REQUESTED_IP, ip.octets().to_vec())));
        out.extend(self.server_id.map(|ip| (SERVER_ID, ip.octets().to_vec())));
        if !farewell {
            if !template.anonymous {
                out.push((MAX_SIZE, template.max_message.max(MIN_MAX_MESSAGE).to_be_bytes().to_vec()));
            }
            out.push((PARAMETERS, template.parameters.clone()));
        }
        let mut extra: Vec<(u8, Vec<u8>)> = template.extra.iter().filter(|(c, _)| *c != CLIENT_ID).cloned().collect();
        extra.extend(template.client_id(mac).map(|id| (CLIENT_ID, id)));
        if self.rapid_commit {
            extra.push((RAPID_COMMIT, Vec::new()));
        }
        // RFC 2131 table 5: these carry the identifiers and nothing that asks for anything.
        extra.retain(|(code, _)| !farewell || *code == CLIENT_ID);
        applet::sort::sort_by_key(&mut extra, |(code, _)| *code);
        out.extend(extra);
        if template.anonymous {
            // RFC 7844 section 3.1: by number, when not at random.
            applet::sort::sort_by_key(&mut out, |(code, _)| *code);
        }
        out.retain(|(code, data)| !data.is_empty() || *code == RAPID_COMMIT);
        out
    }
}

/// The longest message that fits into one packet of an interface with this MTU. The client does not
/// reassemble fragments.
pub fn max_message(mtu: u32) -> u16 {
    u16::try_from(mtu.saturating_sub(28)).unwrap_or(u16::MAX).clamp(MIN_MAX_MESSAGE, MAX_MAX_MESSAGE)
}

/// Option 81 as udhcpc writes it: S set, ASCII encoding (deprecated by RFC 4702 section 2.3.1,
/// understood by all).
pub fn fqdn(name: &str) -> (u8, Vec<u8>) {
    let name: Vec<u8> = name.bytes().take(252).collect();
    (FQDN, [[1, 0, 0].as_slice(), &name].concat())
}

/// One option; more than 255 bytes go in several pieces (RFC 3396).
fn put(out: &mut Vec<u8>, code: u8, data: &[u8]) {
    if data.is_empty() {
        out.extend([code, 0]);
    }
    for piece in data.chunks(255) {
        out.extend([code, u8::try_from(piece.len()).unwrap_or(u8::MAX)]);
        out.extend(piece);
    }
}
