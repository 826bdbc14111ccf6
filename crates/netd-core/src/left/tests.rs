use super::*;
use crate::wire::netlink::{Message, NEW_ADDRESS, NEW_ROUTE, NEW_RULE, messages};
use crate::wire::rtnetlink::{AddressMessage, RouteMessage, RouteProtocol, RuleAttribute, RuleMessage};
use std::net::IpAddr;

fn payload(message: Message) -> Vec<u8> {
    let bytes = message.finish(1);
    messages(&bytes).next().unwrap().1.to_vec()
}

fn address(index: u32, ip: &str, len: u8, protocol: Option<u8>) -> Vec<u8> {
    let ip: IpAddr = ip.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    (message.header.index, message.header.prefix_len) = (index, len);
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message.attributes.extend(protocol.map(|p| AddressAttribute::Protocol(p.into())));
    payload(Message::of(NEW_ADDRESS, 0, &message))
}

fn route(index: u32, to: &str, len: u8, protocol: u8, kind: RouteType) -> Vec<u8> {
    let ip: IpAddr = to.parse().unwrap();
    let mut message = RouteMessage::default();
    message.header.address_family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.destination_prefix_length = len;
    message.header.protocol = RouteProtocol::from(protocol);
    (message.header.kind, message.header.table) = (kind, 254);
    message.attributes = vec![RouteAttribute::Destination(ip.into()), RouteAttribute::Oif(index)];
    payload(Message::of(NEW_ROUTE, 0, &message))
}

fn rule(priority: u32, protocol: u8) -> Vec<u8> {
    let mut message = RuleMessage::default();
    message.header.family = AddressFamily::Inet;
    message.attributes = vec![RuleAttribute::Priority(priority), RuleAttribute::Protocol(protocol.into())];
    payload(Message::of(NEW_RULE, 0, &message))
}

/// A world: links `name index up`, and objects.
fn seen(links: &[(&str, u32, bool)], addresses: &[Vec<u8>], routes: &[Vec<u8>], rules: &[Vec<u8>]) -> Seen {
    let mut seen = Seen::default();
    links.iter().for_each(|(name, index, up)| seen.link(name, *index, *up));
    addresses.iter().for_each(|a| seen.address(a));
    routes.iter().for_each(|r| seen.route(r));
    rules.iter().for_each(|r| seen.rule(r));
    seen
}

const UNICAST: RouteType = RouteType::Unicast;

#[test]
fn each_change_of_another_program_is_a_difference_and_what_is_none_of_fws_is_not() {
    let links = [("lo", 1, true), ("lan0", 2, true), ("eth0", 3, true)];
    let lan = address(2, "10.0.0.1", 24, Some(PROTOCOL));
    let lan6 = address(2, "fd00::1", 64, Some(PROTOCOL));
    let net = route(2, "10.0.0.0", 24, PROTOCOL_KERNEL, UNICAST);
    let via = route(2, "10.9.0.0", 16, PROTOCOL, UNICAST);
    let behind = route(0, "10.0.0.0", 24, PROTOCOL, RouteType::Unreachable);
    let rules = [rule(32763, PROTOCOL)];
    let addresses = [lan.clone(), lan6.clone()];
    let routes = [net.clone(), via.clone(), behind.clone()];
    let left = Left::new(["lan0", "usb0", "lan0"].into_iter(), &seen(&links, &addresses, &routes, &rules), true);
    let is = |links: &[(&str, u32, bool)], addresses: &[Vec<u8>], routes: &[Vec<u8>], rules: &[Vec<u8>]| {
        left.difference(&seen(links, addresses, routes, rules))
    };
    assert_eq!(is(&links, &addresses, &routes, &rules), None);
    // The kernel may show them in another order.
    assert_eq!(is(&links, &[lan6.clone(), lan.clone()], &[behind.clone(), via.clone(), net.clone()], &rules), None);
    let lost = Some("lan0 has lost or gained addresses or routes".to_owned());
    assert_eq!(is(&links, std::slice::from_ref(&lan), &routes, &rules), lost);
    assert_eq!(is(&links, &addresses, &[net.clone(), behind.clone()], &rules), lost);
    assert_eq!(is(&links, &addresses, &[via.clone(), behind.clone()], &rules), lost);
    let changed = Some("rules or routes of fw have changed".to_owned());
    assert_eq!(is(&links, &addresses, &[net.clone(), via.clone()], &rules), changed);
    assert_eq!(is(&links, &addresses, &routes, &[]), changed);
    // What other programs and the kernel have elsewhere.
    let more = [&addresses[..], &[address(3, "192.0.2.1", 24, None), address(2, "fe80::1", 64, None)]].concat();
    let away = [&routes[..], &[route(2, "10.7.0.0", 16, 3, UNICAST), route(3, "192.0.2.0", 24, 2, UNICAST)]].concat();
    assert_eq!(is(&links, &more, &away, &[&rules[..], &[rule(100, 3)]].concat()), None);
    // Another index, up, down, gone, there at last.
    let with = |links: &[(&str, u32, bool)]| is(links, &addresses, &routes, &rules);
    assert_eq!(with(&[links[0], ("lan0", 9, true), links[2]]), Some("lan0 is there anew".into()));
    assert_eq!(with(&[links[0], links[2]]), Some("lan0 is gone".into()));
    assert_eq!(with(&[&links[..], &[("usb0", 4, false)]].concat()), Some("usb0 is there".into()));
    let bare = [links[0], ("lan0", 2, false), links[2]];
    assert_eq!(is(&bare, &[], std::slice::from_ref(&behind), &rules), None, "down: it is the administrator's");
    let down = Left::new(["lan0"].into_iter(), &seen(&bare, &[], &[], &[]), true);
    assert_eq!(down.difference(&seen(&links, &[], &[], &[])), Some("lan0 is up again".into()));
}

#[test]
fn the_text_reads_back_and_an_unsettled_run_is_a_difference() {
    let world = seen(&[("lan0", 2, true), ("eth0", 3, false)], &[address(2, "10.0.0.1", 24, None)], &[], &[]);
    let left = Left::new(["lan0", "eth0", "usb0"].into_iter(), &world, false);
    let text = left.render();
    assert_eq!(Left::parse(&text), Some(left.clone()), "{text}");
    assert_eq!(left.difference(&world), Some("another program was at work while fw was".into()));
    for bad in
        ["", "link lan0\n", "link lan0 x up 1\nothers 0\n", "others zz\n", "others 0\nmore 1\n", "link a/b\nothers 0\n"]
    {
        assert_eq!(Left::parse(bad), None, "{bad}");
    }
    for end in 0..text.len() {
        let _ = Left::parse(&text[..end]);
    }
}

#[test]
fn a_link_is_news_when_fw_has_left_it_in_another_state() {
    let world = seen(&[("lan0", 2, true)], &[], &[], &[]);
    let left = Left::new(["lan0", "usb0"].into_iter(), &world, true);
    for (name, index, up, want) in [
        ("lan0", 2, true, false),
        ("lan0", 2, false, true),
        ("lan0", 3, true, true),
        ("usb0", 7, false, true),
        ("lan1", 2, true, true),
        ("eth0", 9, true, false),
    ] {
        assert_eq!(left.is_news(name, index, up), want, "{name} {index} {up}");
    }
    assert!(left.is_about(None, 2) && left.is_about(Some("usb0"), 9) && !left.is_about(Some("eth0"), 9));
}
