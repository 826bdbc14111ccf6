//! How much of a long list is kept, for script and record, and what the log says about the rest.
//!
//! Pure. A server may send more routes, servers and names than a record has a place for (ipconf(5))
//! or a variable can carry (env.rs). The first ones are kept, and the default route always,
//! wherever it stands in its list. Called by vet.rs for each lease, by env.rs and by record.rs.

use netd_core::net::{DomainName, is_host};

use crate::env;
use crate::lease::{MIN_MTU, small_mtu};
use crate::message::Reply;
use crate::options::{DNS, DOMAIN, HOST_ROUTES, HOSTNAME, MTU, NTP, SEARCH};
use crate::{route_list, routes};

/// Routes in a record; fw reads as many.
pub const MAX_ROUTES: usize = 64;
/// Servers of one kind in a record. resolv.conf(5) takes three.
pub const MAX_SERVERS: usize = 16;
/// Names in a record; fw reads as many.
pub const MAX_NAMES: usize = 64;

/// Names that are shown when they are none, and characters of each.
const MAX_NAMED: usize = 3;
const MAX_SHOWN: usize = 32;

/// Takes the elements that do not fit out of the reply, and an MTU that cuts us off. Returns a line
/// for the log, empty when all is kept.
pub fn cut(reply: &mut Reply, native: bool) -> String {
    let mut words = Vec::new();
    if let Some(mtu) = small_mtu(reply) {
        reply.set(MTU, Vec::new());
        words.push(format!("an MTU of {mtu} bytes (less than {MIN_MTU})"));
    }
    let count = |words: &mut Vec<String>, code: u8, kept: usize, of: usize| {
        if kept < of {
            words.push(format!("{} of {of} elements of option {code}", of - kept));
        }
    };
    if native {
        if let Some((code, list)) = routes::in_force(reply) {
            // The default route of option 3 needs a place beside those of option 33.
            let most = if code == HOST_ROUTES { MAX_ROUTES - 1 } else { MAX_ROUTES };
            let kept = route_list::keep(&list, most, |_| 1);
            count(&mut words, code, kept.len(), list.len());
            if kept.len() < list.len() {
                reply.set(code, routes::encode(code, &kept));
            }
        }
        words.extend(no_names(reply));
        for code in [DNS, NTP] {
            let all = reply
                .option(code)
                .unwrap_or_default()
                .as_chunks::<4>()
                .0
                .iter()
                .filter(|ip| is_host((**ip).into()))
                .count();
            count(&mut words, code, all.min(MAX_SERVERS), all);
        }
        let names = env::count_names(reply.option(SEARCH).unwrap_or_default());
        let domains = env::domains(reply.option(DOMAIN).unwrap_or_default()).len();
        match names {
            0 => count(&mut words, DOMAIN, domains.min(MAX_NAMES), domains),
            _ => count(
                &mut words,
                SEARCH,
                env::names(reply.option(SEARCH).unwrap_or_default()).len().min(MAX_NAMES),
                names,
            ),
        }
    } else {
        for (code, data) in reply.options() {
            if let Some((kept, of)) = env::elements(code, data) {
                count(&mut words, code, kept, of);
            }
        }
    }
    if words.is_empty() { String::new() } else { format!("not taking {}", words.join(", ")) }
}

/// Names that are none, as `corp..example`: a record has no place for them. The log shows the first
/// ones, each up to [`MAX_SHOWN`] characters.
fn no_names(reply: &Reply) -> Vec<String> {
    let option = |code| reply.option(code).unwrap_or_default();
    let mut names = [env::domains(option(DOMAIN)), env::names(option(SEARCH))].concat();
    names.push(String::from_utf8_lossy(env::until_nul(option(HOSTNAME))).into_owned());
    names.retain(|name| !name.is_empty() && DomainName::parse(name).is_none());
    let shown = |name: &String| name.chars().take(MAX_SHOWN).collect::<String>().escape_debug().to_string();
    names.iter().take(MAX_NAMED).map(|name| format!("the name '{}'", shown(name))).collect()
}
