//! Messages as a server makes them, byte by byte.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod bench;

use std::net::Ipv4Addr;
use std::time::Duration;

use netd_core::net::IfName;
use netd_core::record::text::Record;
use netd_udhcpc::client::Grant;
use netd_udhcpc::message::{Reply, decode};
use netd_udhcpc::record::{Context, record};

pub const MAC: [u8; 6] = [0xaa, 0x8e, 0x1f, 0x3c, 0x8a, 0x99];
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 133);

pub const OFFER: u8 = 2;
pub const ACK: u8 = 5;
pub const NAK: u8 = 6;

/// A server's message in the making.
#[derive(Clone, Debug)]
pub struct Wire {
    pub bytes: Vec<u8>,
}

impl Wire {
    /// The fixed part and the cookie.
    pub fn new(xid: u32, yiaddr: Ipv4Addr) -> Wire {
        let mut bytes = vec![0; 236];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&xid.to_be_bytes());
        bytes[16..20].copy_from_slice(&yiaddr.octets());
        bytes[28..34].copy_from_slice(&MAC);
        bytes.extend([0x63, 0x82, 0x53, 0x63]);
        Wire { bytes }
    }

    /// With a type, a server, a lease of 3600 s and a /24.
    pub fn usual(kind: u8, xid: u32) -> Wire {
        let yiaddr = if kind == NAK { Ipv4Addr::UNSPECIFIED } else { ADDRESS };
        let wire = Wire::new(xid, yiaddr).opt(53, &[kind]).opt(54, &SERVER.octets());
        if kind == NAK { wire } else { wire.opt(51, &3600u32.to_be_bytes()).opt(1, &[255, 255, 255, 0]) }
    }

    pub fn opt(mut self, code: u8, data: &[u8]) -> Wire {
        self.bytes.extend([code, u8::try_from(data.len()).unwrap()]);
        self.bytes.extend(data);
        self
    }

    pub fn raw(mut self, data: &[u8]) -> Wire {
        self.bytes.extend(data);
        self
    }

    pub fn at(mut self, offset: usize, data: &[u8]) -> Wire {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.bytes.push(255);
        self.bytes
    }

    pub fn reply(self) -> Reply {
        decode(&self.end(), MAC).unwrap()
    }
}

/// A variable of the environment that a reply gives.
pub fn var(reply: &Reply, name: &str) -> Option<String> {
    let env = netd_udhcpc::env::full("eth0", reply);
    env.into_iter().find(|(n, _)| n == name).map(|(_, v)| String::from_utf8_lossy(&v).into_owned())
}

/// The record of a lease of [`ADDRESS`] on eth0.
pub fn published(reply: Reply) -> Record {
    let context = Context {
        interface: IfName::parse("eth0").unwrap(),
        boot_id: "b".into(),
        pid: 1,
        wall_offset: Duration::ZERO,
        metric: None,
    };
    let grant = Grant { ip: ADDRESS, server_id: SERVER, end: Duration::from_secs(9), reply };
    record(&context, &grant)
}
