//! fw's nft table: whether the kernel still has it as fw loaded it.
//!
//! A shell: a fingerprint of the kernel's own dump of the table, its chains, rules and sets, and
//! the events about it. fw keeps the fingerprint of what it loaded last in `.nft` of the dynamic
//! directory, in front of the text. Both need CAP_NET_ADMIN. Called by fw and `ifplugd --all`.

use std::io;

use netd_core::left::{Fnv, TABLE};
use netd_core::wire::netlink::{self, Message};
use nix::errno::Errno;
use nix::libc;

use crate::netlink::Netlink;

/// Netfilter's multicast group of nftables: every commit in this network namespace.
pub const GROUP: u32 = libc::NFNLGRP_NFTABLES as u32;
/// The last event of every transaction.
pub const NEWGEN: u16 = nftables(libc::NFT_MSG_NEWGEN);
/// Events about a table itself.
pub const TABLE_EVENTS: [u16; 2] = [nftables(libc::NFT_MSG_NEWTABLE), nftables(libc::NFT_MSG_DELTABLE)];
/// The file in the dynamic directory: a fingerprint in 16 hexadecimal digits, a line feed, and the
/// text that was loaded.
pub const FILE: &str = ".nft";

const FAMILY: u8 = libc::NFPROTO_INET as u8;
const GETS: [u16; 4] = [
    nftables(libc::NFT_MSG_GETTABLE),
    nftables(libc::NFT_MSG_GETCHAIN),
    nftables(libc::NFT_MSG_GETRULE),
    nftables(libc::NFT_MSG_GETSET),
];
/// The table's name is attribute 1 of all four kinds (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE,
/// NFTA_RULE_TABLE, NFTA_SET_TABLE).
const TABLE_NAME: u16 = 1;

/// Attributes of linux/netfilter/nf_tables.h: NFTA_RULE_EXPRESSIONS, NFTA_EXPR_NAME,
/// NFTA_SET_COUNT.
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const SET_COUNT: u16 = 20;
/// Expressions whose data changes with each packet.
const MOVING: [&[u8]; 3] = [b"counter\0", b"quota\0", b"last\0"];

/// A message's type: the subsystem is its upper byte.
const fn nftables(message: libc::c_int) -> u16 {
    (libc::NFNL_SUBSYS_NFTABLES << 8 | message) as u16
}

/// Whether the object is fw's table, or a chain, rule or set in it.
pub fn is_ours(payload: &[u8]) -> bool {
    let name = payload.get(4..).and_then(|attributes| netlink::attribute(attributes, TABLE_NAME));
    payload.first() == Some(&FAMILY) && name.and_then(|n| n.strip_suffix(b"\0")) == Some(TABLE.as_bytes())
}

/// A number that changes when the table changes; without a table it is [`none`]. Attributes only:
/// the header carries the ruleset's generation.
pub fn fingerprint(netlink: &mut Netlink) -> io::Result<u64> {
    let mut name = TABLE.as_bytes().to_vec();
    name.push(0);
    let mut hash = Fnv::default();
    for kind in GETS {
        let request = Message::new(kind, netlink::DUMP, &[FAMILY, 0, 0, 0]).with(TABLE_NAME, &name);
        let objects = match netlink.dump(&request) {
            Ok(objects) => objects,
            Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Vec::new(),
            Err(e) => return Err(e),
        };
        objects.iter().filter(|(_, payload)| is_ours(payload)).for_each(|(_, payload)| {
            add(&mut hash, kind, payload.get(4..).unwrap_or_default());
        });
    }
    Ok(hash.0)
}

/// Takes in all of an object that packets do not change: the rules of the administrator may count.
fn add(hash: &mut Fnv, get: u16, attributes: &[u8]) {
    const RULE: u16 = nftables(libc::NFT_MSG_GETRULE);
    const SET: u16 = nftables(libc::NFT_MSG_GETSET);
    for (kind, value) in netlink::attributes(attributes) {
        match (get, kind) {
            (RULE, RULE_EXPRESSIONS) => netlink::attributes(value).for_each(|(_, expression)| {
                let name = netlink::attribute(expression, EXPRESSION_NAME).unwrap_or_default();
                hash.add(if MOVING.contains(&name) { name } else { expression });
            }),
            (SET, SET_COUNT) => {}
            (_, kind) => {
                hash.add(&kind.to_le_bytes());
                hash.add(value);
            }
        }
    }
}

/// The fingerprint where there is no such table.
pub fn none() -> u64 {
    Fnv::default().0
}
