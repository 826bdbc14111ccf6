//! A reply's options -> a script's variables, by udhcpc's names and formats.
//!
//! Pure. Everything in a reply is a stranger's text: host names keep udhcpc's allow-list (and its
//! `bad`), every other value loses control bytes, none may start like a shell function, none is
//! longer than 4 KiB (execve fails with E2BIG on a very long one, and the script would not run at
//! all). Called by notice.rs.

use std::net::Ipv4Addr;

use crate::lease::small_mtu;
use crate::message::Reply;
use crate::options::{self, DOMAIN, MTU, SUBNET, Shape};
use crate::route_list::{self, Route};

/// Longest value in bytes.
pub const MAX_VALUE: usize = 4096;
/// RFC 1035: no name is longer.
const MAX_NAME: usize = 255;
/// Pointers that one name may follow: busybox stops there as well.
const MAX_POINTERS: usize = 6;

/// Variables, in the order of the options.
pub type Env = Vec<(String, Vec<u8>)>;

/// Only `interface`: what deconfig and leasefail get.
pub fn bare(interface: &str) -> Env {
    vec![("interface".into(), interface.into())]
}

/// Everything that a reply says: bound, renew and nak.
pub fn full(interface: &str, reply: &Reply) -> Env {
    let mut env = bare(interface);
    let mut add = |name: &str, value: Vec<u8>| env.push((name.to_owned(), guard(value)));
    add("ip", reply.yiaddr.to_string().into());
    for (name, ip) in [("siaddr", reply.siaddr), ("giaddr", reply.giaddr)] {
        if !ip.is_unspecified() {
            add(name, ip.to_string().into());
        }
    }
    for (name, field) in [("boot_file", &reply.file), ("sname", &reply.sname)] {
        if !field.is_empty() {
            add(name, field.clone());
        }
    }
    for (code, data) in reply.options() {
        match options::by_code(code) {
            // A script would set it.
            Some(_) if code == MTU && small_mtu(reply).is_some() => {}
            Some(known) => {
                add(known.name(), if code == DOMAIN { domain(data) } else { format(known.shape, data) });
                if code == SUBNET
                    && let Some(mask) = reply.fixed::<4>(SUBNET)
                {
                    add("mask", u32::from_be_bytes(mask).count_ones().to_string().into());
                }
            }
            // Without a value it is no variable.
            None if data.is_empty() => {}
            None => add(&format!("opt{code}"), hex(data).into()),
        }
    }
    env
}

/// The last gate before an environment: no control byte, no `() {`, no more than [`MAX_VALUE`].
fn guard(mut value: Vec<u8>) -> Vec<u8> {
    value.truncate(MAX_VALUE);
    for byte in &mut value {
        if byte.is_ascii_control() {
            *byte = b'_';
        }
    }
    // CVE-2014-6271: a shell that imports functions from its environment.
    if value.trim_ascii_start().starts_with(b"()") { b"bad".to_vec() } else { value }
}

fn format(shape: Shape, data: &[u8]) -> Vec<u8> {
    match shape {
        Shape::Ip | Shape::IpList => joined(data.as_chunks::<4>().0.iter().map(|c| quad(*c))),
        Shape::IpPairs => joined(
            data.as_chunks::<8>()
                .0
                .iter()
                .map(|[a, b, c, d, e, f, g, h]| format!("{}/{}", quad([*a, *b, *c, *d]), quad([*e, *f, *g, *h]))),
        ),
        Shape::U8 => joined(data.iter().map(u8::to_string)),
        Shape::U16 => joined(data.as_chunks::<2>().0.iter().map(|c| u16::from_be_bytes(*c).to_string())),
        Shape::U32 => joined(data.as_chunks::<4>().0.iter().map(|c| u32::from_be_bytes(*c).to_string())),
        Shape::Text => until_nul(data).to_vec(),
        Shape::HostText => host_text(data),
        Shape::Routes => joined(within(&routes(data)).iter().map(words)),
        Shape::Names => joined(names(data).into_iter()),
        Shape::Sip => match data.split_first() {
            Some((0, rest)) => joined(names(rest).into_iter()),
            Some((1, rest)) => format(Shape::IpList, rest),
            _ => Vec::new(),
        },
        Shape::SixRd => six_rd(data).unwrap_or_default().into(),
        Shape::Raw => hex(data).into(),
    }
}

/// A route as scripts know it.
fn words((net, len, gw): &Route) -> String {
    format!("{net}/{len} {gw}")
}

/// The routes that fit into one variable.
fn within(list: &[Route]) -> Vec<Route> {
    // A blank behind each but the last.
    route_list::keep(list, MAX_VALUE + 1, |route| words(route).len() + 1)
}

/// How many elements of a list its variable has, and how many the option has; `None`: it is no
/// list.
pub fn elements(code: u8, data: &[u8]) -> Option<(usize, usize)> {
    let shape = options::by_code(code)?.shape;
    let of = match shape {
        Shape::Ip | Shape::IpList | Shape::U32 => data.len() / 4,
        Shape::IpPairs => data.len() / 8,
        Shape::U8 => data.len(),
        Shape::U16 => data.len() / 2,
        Shape::Names => count_names(data),
        Shape::Routes => {
            let list = routes(data);
            return Some((within(&list).len(), list.len()));
        }
        Shape::Text | Shape::HostText | Shape::Sip | Shape::SixRd | Shape::Raw => return None,
    };
    let value = format(shape, data);
    Some((value.split(|b| *b == b' ').filter(|word| !word.is_empty()).count(), of))
}

/// Items with blanks between them, whole items only up to [`MAX_VALUE`]: half a route is another
/// route.
fn joined(items: impl Iterator<Item = String>) -> Vec<u8> {
    let mut out = String::new();
    for item in items {
        if out.len() + 1 + item.len() > MAX_VALUE {
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&item);
    }
    out.into()
}

fn quad(octets: [u8; 4]) -> String {
    Ipv4Addr::from(octets).to_string()
}

fn hex(data: &[u8]) -> String {
    data.iter().take(MAX_VALUE / 2).map(|b| format!("{b:02x}")).collect()
}

/// The bytes up to the first NUL.
pub fn until_nul(data: &[u8]) -> &[u8] {
    data.split(|b| *b == 0).next().unwrap_or_default()
}

/// A host or domain name that needs no quoting anywhere: `[A-Za-z0-9._-]`, not starting with a
/// dash.
pub fn is_host_text(text: &[u8]) -> bool {
    !text.is_empty()
        && !text.starts_with(b"-")
        && text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The names of an option 15 with one or several, as many servers send it. RFC 2132 section 2: NULs
/// at the end do not count. Empty when one of them is no name.
pub fn domains(data: &[u8]) -> Vec<String> {
    let words = || until_nul(data).split(|b| *b == b' ').filter(|word| !word.is_empty());
    if !words().all(is_host_text) {
        return Vec::new();
    }
    words().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// All names of option 15; udhcpc has `bad` in place of several.
fn domain(data: &[u8]) -> Vec<u8> {
    let names = domains(data);
    if names.is_empty() { host_text(data) } else { joined(names.into_iter()) }
}

/// udhcpc's sanitising, with its quirk: `bad` is cut to one byte less than the option.
fn host_text(data: &[u8]) -> Vec<u8> {
    let text = until_nul(data);
    if text.is_empty() || is_host_text(text) {
        return text.to_vec();
    }
    b"bad".iter().copied().take(data.len().saturating_sub(1)).collect()
}

/// RFC 3442 routes: network, prefix length, router. Ends at the first one that cannot be; what was
/// read stays. Bits of a network beyond its prefix do not count ("DHCP Client Behavior" there), and
/// no kernel takes them.
pub fn routes(mut data: &[u8]) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    let mut found = Vec::new();
    while let Some((&len, rest)) = data.split_first() {
        let significant = usize::from(len.div_ceil(8));
        if len > 32 {
            break;
        }
        let Some((net, rest)) = rest.split_at_checked(significant) else { break };
        let Some((gw, rest)) = rest.split_first_chunk::<4>() else { break };
        let mut octets = [0; 4];
        for (to, from) in octets.iter_mut().zip(net) {
            *to = *from;
        }
        let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
        found.push((Ipv4Addr::from(u32::from_be_bytes(octets) & mask), len, Ipv4Addr::from(*gw)));
        data = rest;
    }
    found
}

/// RFC 1035 names with pointers inside the option (RFC 3397). Any name that is broken, loops or is
/// cut makes the whole list empty, as in udhcpc; a name with anything but host characters is left
/// out, and so is each that does not fit into [`MAX_VALUE`] any more: with pointers, two bytes are
/// a whole name.
pub fn names(data: &[u8]) -> Vec<String> {
    let mut room = MAX_VALUE + 1;
    let mut found = Vec::new();
    let whole = each_name(data, |name| {
        if name.len() < room {
            room -= name.len() + 1;
            found.push(name);
        } else {
            room = 0;
        }
    });
    if whole { found } else { Vec::new() }
}

/// How many names there are.
pub fn count_names(data: &[u8]) -> usize {
    let mut count = 0;
    if each_name(data, |_| count += 1) { count } else { 0 }
}

/// Hands out the names of host characters; false when the list is broken.
fn each_name(data: &[u8], mut take: impl FnMut(String)) -> bool {
    let mut at = 0;
    while at < data.len() {
        let Some((name, next)) = name(data, at) else { return false };
        if is_host_text(name.as_bytes()) {
            take(name);
        }
        at = next;
    }
    true
}

/// One name and where the next one starts.
fn name(data: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut at, mut next, mut pointers) = (start, None, 0);
    loop {
        let Some(&len) = data.get(at) else {
            // Whole labels up to the end of the option are a name to busybox, too.
            return (at == data.len() && pointers == 0 && !name.is_empty()).then_some((name, at));
        };
        at += 1;
        match len {
            0 => return Some((name, next.unwrap_or(at))),
            1..=63 => {
                let label = data.get(at..at + usize::from(len))?;
                at += usize::from(len);
                if !name.is_empty() {
                    name.push('.');
                }
                // A byte that is no host character spoils the name; it is left out by the caller.
                name.extend(label.iter().map(|b| if is_host_text(&[b'a', *b]) { char::from(*b) } else { '?' }));
                if name.len() > MAX_NAME {
                    return None;
                }
            }
            0xc0.. => {
                let low = *data.get(at)?;
                next = next.or(Some(at + 1));
                at = usize::from(len & 0x3f) << 8 | usize::from(low);
                pointers += 1;
                if pointers > MAX_POINTERS {
                    return None;
                }
            }
            64..=191 => return None,
        }
    }
}

/// RFC 5969 section 7.1.1: `MASKLEN PREFIXLEN PREFIX ROUTER...`; nothing when it cannot be.
fn six_rd(data: &[u8]) -> Option<String> {
    let (&[mask_len, prefix_len], rest) = data.split_first_chunk::<2>()?;
    let (prefix, routers) = rest.split_first_chunk::<16>()?;
    if mask_len > 32 || prefix_len > 128 || prefix_len + (32 - mask_len) > 128 || routers.len() < 4 {
        return None;
    }
    let groups: Vec<String> =
        prefix.as_chunks::<2>().0.iter().map(|g| format!("{:04x}", u16::from_be_bytes(*g))).collect();
    // 128 routers fit below MAX_VALUE with all that stands before them.
    let routers = routers.get(..512).unwrap_or(routers);
    let routers = String::from_utf8(format(Shape::IpList, routers)).ok()?;
    Some(format!("{mask_len} {prefix_len} {} {routers}", groups.join(":")))
}
