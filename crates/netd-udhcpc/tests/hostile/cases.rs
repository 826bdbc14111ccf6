//! The hostile-server matrix: what a server answers, byte for byte, and what becomes of it: by the
//! clients it was measured with (busybox udhcpc 1.35, dhcpcd 9.4.1 -A, ISC dhclient 4.4.3), and by
//! ours.
//!
//! Nothing but bytes is here: matrix.rs gives them to the machine, tests/netns/hostile.rs to the
//! binary over a wire.
#![allow(unreachable_pub, reason = "included in two test binaries")]

pub const SERVER: [u8; 4] = [192, 0, 2, 1];
pub const ADDRESS: [u8; 4] = [192, 0, 2, 50];
const ROGUE: [u8; 4] = [192, 0, 2, 66];

const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;

/// What the client said.
pub struct Asked {
    /// It is a REQUEST; else a DISCOVER.
    pub request: bool,
    /// How many of these it had sent before in this case.
    pub before: usize,
    pub xid: u32,
    pub mac: [u8; 6],
    /// Option 54.
    pub server: Option<[u8; 4]>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ours {
    /// A lease of this address; the script's variables then.
    Bound([u8; 4], &'static [(&'static str, Option<&'static str>)]),
    /// No lease, as long as the server goes on like that.
    None,
}

pub struct Case {
    pub name: &'static str,
    /// udhcpc, dhcpcd, dhclient.
    pub others: [&'static str; 3],
    pub ours: Ours,
    pub answer: fn(&Asked) -> Vec<Vec<u8>>,
}

/// A reply in the making.
#[derive(Clone)]
pub struct Reply(pub Vec<u8>);

impl Reply {
    /// The fixed part, the cookie and the type.
    fn bare(asked: &Asked, kind: u8) -> Reply {
        let mut bytes = vec![0; 236];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&asked.xid.to_be_bytes());
        bytes[16..20].copy_from_slice(&if kind == NAK { [0; 4] } else { ADDRESS });
        bytes[28..34].copy_from_slice(&asked.mac);
        bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
        Reply(bytes)
    }

    /// OFFER or ACK as is due, without server, lease and mask.
    fn due(asked: &Asked) -> Reply {
        Reply::bare(asked, if asked.request { ACK } else { OFFER })
    }

    /// With a server, a lease of an hour and a /24.
    fn usual(asked: &Asked) -> Reply {
        Reply::due(asked).opt(54, &SERVER).opt(51, &3600u32.to_be_bytes()).opt(1, &[255, 255, 255, 0])
    }

    fn opt(mut self, code: u8, data: &[u8]) -> Reply {
        self.0.extend([code, u8::try_from(data.len()).unwrap()]);
        self.0.extend(data);
        self
    }

    fn at(mut self, offset: usize, data: &[u8]) -> Reply {
        self.0[offset..offset + data.len()].copy_from_slice(data);
        self
    }

    fn end(mut self) -> Vec<Vec<u8>> {
        self.0.push(255);
        vec![self.0]
    }
}

fn yiaddr(asked: &Asked, ip: [u8; 4]) -> Vec<Vec<u8>> {
    Reply::usual(asked).at(16, &ip).end()
}

fn masked(asked: &Asked, mask: &[u8]) -> Vec<Vec<u8>> {
    Reply::due(asked).opt(54, &SERVER).opt(51, &[0, 0, 14, 16]).opt(1, mask).end()
}

fn with(asked: &Asked, code: u8, data: &[u8]) -> Vec<Vec<u8>> {
    Reply::usual(asked).opt(code, data).end()
}

const PLAIN: &[(&str, Option<&str>)] =
    &[("subnet", Some("255.255.255.0")), ("mask", Some("24")), ("lease", Some("3600"))];

const fn case(name: &'static str, others: [&'static str; 3], ours: Ours, answer: fn(&Asked) -> Vec<Vec<u8>>) -> Case {
    Case { name, others, ours, answer }
}

use Ours::{Bound, None as Nothing};

#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("as it should be", ["bound", "bound", "bound"], Bound(ADDRESS, PLAIN), |a| Reply::usual(a).end()),
    // D23
    case("yiaddr 0.0.0.0", ["bound", "refused", "bound"], Nothing, |a| yiaddr(a, [0; 4])),
    case("yiaddr 255.255.255.255", ["bound", "refused", "bound"], Nothing, |a| yiaddr(a, [255; 4])),
    case("yiaddr 127.0.0.1", ["bound", "bound", "bound"], Nothing, |a| yiaddr(a, [127, 0, 0, 1])),
    case("yiaddr 224.0.0.5", ["bound", "bound", "bound"], Nothing, |a| yiaddr(a, [224, 0, 0, 5])),
    case("yiaddr is the server's own", ["bound", "bound", "bound"], Nothing, |a| yiaddr(a, SERVER)),
    case("yiaddr is the network's", ["bound", "bound", "bound"], Nothing, |a| yiaddr(a, [192, 0, 2, 0])),
    case("yiaddr is the broadcast address", ["bound", "bound", "bound"], Nothing, |a| yiaddr(a, [192, 0, 2, 255])),
    case("no server identifier", ["bound", "refused", "bound"], Bound(ADDRESS, &[("serverid", None)]),
        |a| Reply::due(a).opt(51, &[0, 0, 14, 16]).opt(1, &[255, 255, 255, 0]).end()),
    case("server identifier 224.0.0.1", ["bound", "bound", "bound"], Nothing,
        |a| Reply::due(a).opt(54, &[224, 0, 0, 1]).opt(51, &[0, 0, 14, 16]).end()),
    // D32
    case("no lease time", ["bound", "bound", "refused"], Bound(ADDRESS, &[("lease", None)]),
        |a| Reply::due(a).opt(54, &SERVER).opt(1, &[255, 255, 255, 0]).end()),
    case("lease of 0 s", ["bound", "bound", "refused"], Nothing,
        |a| Reply::due(a).opt(54, &SERVER).opt(51, &[0; 4]).opt(1, &[255, 255, 255, 0]).end()),
    // D06, D27
    case("no mask", ["bound, none told", "bound, /8", "bound"], Bound(ADDRESS, &[("mask", None), ("subnet", None)]),
        |a| Reply::due(a).opt(54, &SERVER).opt(51, &[0, 0, 14, 16]).end()),
    case("mask 255.0.255.0", ["bound, mask=24", "bound", "bound"], Nothing, |a| masked(a, &[255, 0, 255, 0])),
    case("mask 0.0.0.0", ["bound, mask=0", "bound", "bound"], Nothing, |a| masked(a, &[0; 4])),
    case("mask 128.0.0.0", ["bound, mask=1", "bound", "bound"], Nothing, |a| masked(a, &[128, 0, 0, 0])),
    case("mask of one byte", ["bound", "bound", "bound"], Nothing, |a| masked(a, &[255])),
    // D34
    case("hlen 16", ["refused", "bound", "refused"], Nothing, |a| Reply::usual(a).at(2, &[16]).end()),
    case("hlen 255", ["refused", "bound", "refused"], Nothing, |a| Reply::usual(a).at(2, &[255]).end()),
    // D28
    case("another chaddr", ["refused", "refused", "refused"], Nothing, |a| Reply::usual(a).at(33, &[a.mac[5] ^ 1]).end()),
    case("another xid", ["refused", "refused", "refused"], Nothing, |a| Reply::usual(a).at(4, &(a.xid ^ 1).to_be_bytes()).end()),
    case("a request for a reply", ["bound", "refused", "refused"], Nothing, |a| Reply::usual(a).at(0, &[1]).end()),
    case("no cookie", ["refused", "refused", "refused"], Nothing, |a| Reply::usual(a).at(236, &[0; 4]).end()),
    // D12, D22
    case("the last option overruns the packet", ["bound, stack told", "bound, without options", "bound"],
        Bound(ADDRESS, &[("lease", Some("3600")), ("opt31", None)]),
        |a| vec![[&Reply::usual(a).0[..], &[31, 40, 1, 2]].concat()]),
    case("no END", ["bound", "bound", "bound"], Bound(ADDRESS, PLAIN), |a| vec![Reply::usual(a).0]),
    case("nothing behind the cookie", ["refused", "refused", "refused"], Nothing, |a| vec![Reply::due(a).0[..240].to_vec()]),
    case("cut in the fixed part", ["refused", "refused", "refused"], Nothing, |a| vec![Reply::usual(a).0[..200].to_vec(), vec![], vec![2]]),
    // RFC 3396
    case("an option twice, another between", ["joined", "joined", "joined"], Bound(ADDRESS, &[("dns", Some("1.1.1.1 2.2.2.2"))]),
        |a| Reply::usual(a).opt(6, &[1; 4]).opt(12, b"x").opt(6, &[2; 4]).end()),
    case("an option in two halves", ["joined", "joined", "joined"], Bound(ADDRESS, &[("dns", Some("1.2.3.4"))]),
        |a| Reply::usual(a).opt(6, &[1, 2]).opt(12, b"x").opt(6, &[3, 4]).end()),
    // D13, D17
    case("options in file and sname", ["ok", "ok", "ok"], Bound(ADDRESS, &[("dns", Some("9.9.9.9")), ("domain", Some("d")), ("boot_file", None)]),
        |a| Reply::usual(a).opt(52, &[3]).at(108, &[6, 4, 9, 9, 9, 9, 255]).at(44, &[15, 1, b'd', 255]).end()),
    case("an overload in the overloaded field", ["ok", "ok", "ok"], Bound(ADDRESS, &[("hostname", None)]),
        |a| Reply::usual(a).opt(52, &[1]).at(108, &[52, 1, 3, 255]).at(44, &[12, 1, b'h', 255]).end()),
    // D16
    case("options of 1 KiB", ["refused", "bound", "bound"], Bound(ADDRESS, &[("lease", Some("3600")), ("dns", Some("9.9.9.9"))]),
        |a| (0..4).fold(Reply::usual(a), |r, _| r.opt(224, &[0xab; 250])).opt(6, &[9; 4]).end()),
    // D09, D21, D24
    case("search with shell in it", ["raw", "raw", "dropped"], Bound(ADDRESS, &[("search", Some("ok.example"))]),
        |a| with(a, 119, b"\x0ca;b $(c).com\0\x02ok\x07example\0")),
    case("search with a loop", ["search=", "dropped", "-"], Bound(ADDRESS, &[("search", Some(""))]), |a| with(a, 119, b"\xc0\x00")),
    case("search past its end", ["search=", "dropped", "-"], Bound(ADDRESS, &[("search", Some(""))]), |a| with(a, 119, b"\x3fab")),
    // D11
    case("dns of 3 bytes", ["dns=", "dropped", "<error>"], Bound(ADDRESS, &[("dns", Some(""))]), |a| with(a, 6, &[1, 2, 3])),
    case("lease time of 3 bytes", ["bound", "bound", "refused"], Bound(ADDRESS, &[("lease", Some(""))]),
        |a| Reply::due(a).opt(54, &SERVER).opt(1, &[255, 255, 255, 0]).opt(51, &[0, 14, 16]).end()),
    case("server identifier of 200 bytes (D19)", ["bound", "refused", "bound"], Bound(ADDRESS, &[]),
        |a| Reply::due(a).opt(51, &[0, 0, 14, 16]).opt(1, &[255, 255, 255, 0]).opt(54, &[0; 200]).end()),
    // D01, D02, D03, D18
    case("shell in names", ["bad", "empty", "dropped"], Bound(ADDRESS, &[("hostname", Some("bad")), ("domain", Some("bad")), ("tftp", Some("bad"))]),
        |a| Reply::usual(a).opt(12, b"$(reboot)").opt(15, b"`id`;x y").opt(66, b"a\nb'").end()),
    case("shell and control bytes in texts", ["raw", "raw", "escaped"],
        Bound(ADDRESS, &[("rootpath", Some("bad")), ("wpad", Some("x'& cmd #_")), ("message", Some("_[2J"))]),
        |a| Reply::usual(a).opt(17, b"() { :;}; id").opt(252, b"x'& cmd #\n").opt(56, b"\x1b[2J").end()),
    // D26
    case("half of the internet as a route", ["told", "taken", "told"], Bound(ADDRESS, &[("staticroutes", Some("10.0.0.0/8 192.0.2.9"))]),
        |a| with(a, 121, &[1, 0, 192, 0, 2, 66, 8, 10, 192, 0, 2, 9, 1, 128, 192, 0, 2, 66])),
    // D20
    case("FORCERENEW and nothing else", ["refused", "refused", "refused"], Nothing, |a| Reply::bare(a, 9).opt(54, &SERVER).end()),
    // D31
    case("a NAK first", ["bound", "bound", "bound"], Bound(ADDRESS, PLAIN),
        |a| if a.request && a.before == 0 { Reply::bare(a, NAK).opt(54, &SERVER).end() } else { Reply::usual(a).end() }),
    case("a NAK first, of nobody", ["bound", "bound", "bound"], Bound(ADDRESS, PLAIN),
        |a| if a.request && a.before == 0 { Reply::bare(a, NAK).end() } else { Reply::usual(a).end() }),
    case("a NAK before each OFFER", ["bound", "loops", "bound"], Bound(ADDRESS, PLAIN),
        |a| if a.request { Reply::usual(a).end() } else { [Reply::bare(a, NAK).opt(54, &SERVER).end(), Reply::usual(a).end()].concat() }),
    case("a rogue offers first and never confirms", ["starves", "starves", "starves"], Bound(ADDRESS, PLAIN), |a| {
        let rogue = Reply::due(a).at(16, &[192, 0, 2, 200]).opt(54, &ROGUE).opt(51, &[0, 0, 14, 16]).opt(1, &[255, 255, 255, 0]);
        match (a.request, a.server) {
            (false, _) => [rogue.end(), Reply::usual(a).end()].concat(),
            (true, Some(SERVER)) => Reply::usual(a).end(),
            (true, _) => vec![],
        }
    }),
    // D33
    case("an ACK of another address", ["bound", "bound", "bound"], Nothing,
        |a| if a.request { yiaddr(a, [192, 0, 2, 77]) } else { Reply::usual(a).end() }),
    case("an ACK of another server", ["bound", "bound", "bound"], Nothing,
        |a| if a.request { Reply::due(a).opt(54, &ROGUE).opt(51, &[0, 0, 14, 16]).end() } else { Reply::usual(a).end() }),
    case("an ACK without an offer", ["refused", "refused", "refused"], Nothing,
        |a| if a.request { vec![] } else { Reply::bare(a, ACK).opt(54, &SERVER).opt(51, &[0, 0, 14, 16]).end() }),
];
