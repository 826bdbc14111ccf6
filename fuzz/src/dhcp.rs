//! DHCP messages: what they bring into a script or a record, and whether another decoder reads the
//! same.

use netd_core::net::{IfName, Prefix};
use netd_core::record::text;
use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::{DhcpOption, Message, OptionCode};
use dhcproto::{Decodable, Decoder};
use netd_udhcpc::bounds;
use netd_udhcpc::client::Grant;
use netd_udhcpc::env;
use netd_udhcpc::gate::Gate;
use netd_udhcpc::message::{self, Reply, Template};
use netd_udhcpc::record::{self, Context};
use netd_udhcpc::route_list::Route;
use netd_udhcpc::routes;

use crate::MAC;

/// The message for an input. When the first byte is odd, the rest is options behind a correct head;
/// otherwise the input is the message.
fn stands_for(data: &[u8]) -> Vec<u8> {
    match data.split_first() {
        Some((first, options)) if first & 1 != 0 => {
            let mut bytes = vec![0; 236];
            bytes[..8].copy_from_slice(&[2, 1, 6, 0, 1, 2, 3, 4]);
            bytes[16..20].copy_from_slice(&[10, 9, 0, 133]);
            bytes[28..34].copy_from_slice(&MAC);
            bytes.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 5]);
            bytes.extend(options);
            bytes
        }
        _ => data.to_vec(),
    }
}

/// A message becomes an environment and a record, and neither holds anything that a shell would
/// execute.
pub fn message(data: &[u8]) {
    let Ok(mut reply) = message::decode(&stands_for(data), MAC) else { return };
    environment(&reply);
    refusal(reply.clone(), data);
    let has_default = |(_, list): (u8, Vec<Route>)| list.iter().any(|(_, len, _)| *len == 0);
    let before = routes::in_force(&reply).is_some_and(has_default);
    for native in [false, true] {
        let said = bounds::cut(&mut reply, native);
        assert!(!said.chars().any(char::is_control) && said.len() < 1000, "{said:?}");
        environment(&reply);
    }
    assert_eq!(routes::in_force(&reply).is_some_and(has_default), before, "the default route survives");
    let context = Context {
        interface: IfName::parse("eth0").unwrap(),
        boot_id: "0123abcd".into(),
        pid: 1,
        wall_offset: Duration::ZERO,
        metric: None,
    };
    let grant = Grant { ip: reply.yiaddr, server_id: Ipv4Addr::new(10, 9, 0, 1), end: Duration::from_secs(9), reply };
    let record = record::record(&context, &grant);
    let text = text::render(&[record]).expect("a record of a reply can be written");
    assert_eq!(text::parse(text.as_bytes()).map(|r| r.len()), Ok(1));
}

/// The client may refuse a reply before the machine sees it, or ignore an option of it. It gives a
/// reason for each.
fn refusal(mut reply: Reply, data: &[u8]) {
    let code = data.last().copied().unwrap_or(1);
    let gate = Gate { reject: Prefix::parse("10.9.0.128/26").into_iter().collect(), ignore: vec![code] };
    let template = Template { default_client_id: true, ..Template::default() };
    match gate.admit(&mut reply, Ipv4Addr::new(10, 9, 0, 1), &template, MAC) {
        Ok(()) => assert!(reply.option(code).is_none()),
        Err(why) => assert!(why.is_ascii() && !why.chars().any(char::is_control) && why.len() < 200, "{why:?}"),
    }
}

/// Checks what netd::runner requires of the environment, and what man/udhcpc.8 promises.
pub(crate) fn environment(reply: &Reply) {
    let env = env::full("eth0", reply);
    assert!(env.len() <= 300, "{} variables", env.len());
    let total: usize = env.iter().map(|(n, v)| n.len() + v.len() + 2).sum();
    assert!(total < 64 * 1024, "{total} bytes");
    for (name, value) in env {
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()) && name.len() <= 32, "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert!(!value.iter().any(u8::is_ascii_control) && !value.starts_with(b"()"), "{name}: {value:?}");
        assert!(value.len() <= 4096, "{name}");
    }
}

/// The codes of the options in the main area, in order. `None` when they are malformed, or need the
/// joining or overloading that dhcproto does in another way.
fn plain(data: &[u8]) -> Option<Vec<u8>> {
    let mut codes = Vec::new();
    let mut rest = data.get(240..)?;
    loop {
        match rest.split_first()? {
            (0, after) => rest = after,
            (255, _) => return Some(codes),
            (code, after) => {
                let (len, after) = after.split_first()?;
                rest = after.get(usize::from(*len)..)?;
                if codes.contains(code) || *code == 52 {
                    return None;
                }
                codes.push(*code);
            }
        }
    }
}

/// dhcproto stops at the first option that it rejects. What it has read until then must equal what
/// ours has read.
pub fn oracle(data: &[u8]) {
    let data = stands_for(data);
    let (Ok(ours), Some(_)) = (message::decode(&data, MAC), plain(&data)) else { return };
    let Ok(theirs) = Message::decode(&mut Decoder::new(&data)) else { return };
    assert_eq!((ours.xid, ours.yiaddr), (theirs.xid(), theirs.yiaddr()));
    assert_eq!((ours.siaddr, ours.giaddr), (theirs.siaddr(), theirs.giaddr()));
    for (code, option) in theirs.opts().iter() {
        let octets = |ip: &Ipv4Addr| ip.octets().to_vec();
        let want = match option {
            DhcpOption::SubnetMask(ip) | DhcpOption::ServerIdentifier(ip) | DhcpOption::BroadcastAddr(ip) => octets(ip),
            DhcpOption::Router(ips) | DhcpOption::DomainNameServer(ips) | DhcpOption::NtpServers(ips) => {
                ips.iter().flat_map(octets).collect()
            }
            DhcpOption::AddressLeaseTime(n) | DhcpOption::Renewal(n) | DhcpOption::Rebinding(n) => {
                n.to_be_bytes().into()
            }
            DhcpOption::DomainName(text) | DhcpOption::Message(text) => text.clone().into_bytes(),
            DhcpOption::Unknown(unknown) => unknown.data().to_vec(),
            _ => continue,
        };
        let got = ours.option(u8::from(*code)).unwrap_or_default();
        // dhcproto takes only the bytes that it needs from an option that is too long.
        let fixed = matches!(
            code,
            OptionCode::SubnetMask
                | OptionCode::ServerIdentifier
                | OptionCode::BroadcastAddr
                | OptionCode::AddressLeaseTime
                | OptionCode::Renewal
                | OptionCode::Rebinding
        );
        assert!(got == want || (fixed && got.starts_with(&want)), "{code:?}: {got:?}, by dhcproto {want:?}");
    }
}
