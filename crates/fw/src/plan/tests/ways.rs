//! Rules and tables of uplinks.

use super::*;
use crate::want::Routed;
use netd_core::rng::Rng;

/// On a kernel that has rules.
pub(super) fn with_rules() -> Have {
    let rule = |v4, priority, table| Rule {
        priority,
        v4,
        source: None,
        mark: 0,
        table,
        specific: false,
        protocol: PROTOCOL_KERNEL,
        plain: true,
    };
    let rules = [true, false].map(|v4| [(0, 255), (32_766, 254), (32_767, 253)].map(|(p, t)| rule(v4, p, t)));
    Have { rules: rules.concat(), ..machine() }
}

fn about_ways(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|l| l.contains(" rule ") || l.contains(" table ")).collect()
}

#[test]
fn answers_of_two_uplinks_leave_by_their_own_and_it_ends_with_the_second() {
    let mut have = with_rules();
    let six = "if=eth0 ipmask=fe80::5/64\nif=eth0 ipmask=169.254.5.5/16 scope=link";
    let made = about_ways(run(&want(&format!("{TWO}\n{six}")), &mut have));
    let rules = |ip: &str, n: u32| {
        let mark = format!("all fwmark {:#x}/0xff000000", n << 24);
        let three = [ip, &mark].map(|from| {
            [
                format!("+ rule from {from} lookup {} suppress_prefixlength 0 priority 32763", 213_000 + n),
                format!("+ rule from {from} lookup main suppress_prefixlength 0 priority 32764"),
                format!("+ rule from {from} lookup {} priority 32765", 213_000 + n),
            ]
        });
        three.concat()
    };
    let routes = [
        "+ route 10.1.0.0/24 dev eth0 metric 0 src 10.1.0.5 table 213001",
        "+ route 10.2.0.0/24 dev eth1 metric 0 src 10.2.0.5 table 213002",
        "+ route default via 10.1.0.1 dev eth0 metric 0 src 10.1.0.5 table 213001",
        "+ route default via 10.2.0.1 dev eth1 metric 0 src 10.2.0.5 table 213002",
    ]
    .map(str::to_owned);
    assert_eq!(made, [&routes[..], &rules("10.1.0.5", 1), &rules("10.2.0.5", 2)].concat());
    assert_eq!(
        about_ways(run(&want(&format!("{TWO}\nif=eth0 health=down")), &mut have)),
        [] as [&str; 0],
        "bad or good"
    );

    let first: String = TWO.lines().take(2).map(|l| format!("{l}\n")).collect();
    let gone = about_ways(run(&want(&first), &mut have));
    // The first one keeps its table, and needs no rule for its own network any more.
    let alone = rules("10.1.0.5", 1).into_iter().filter(|l| l.ends_with("priority 32763"));
    let mut unmade: Vec<String> = alone.chain(rules("10.2.0.5", 2)).map(|l| l.replacen('+', "-", 1)).collect();
    let mut rules_gone: Vec<String> = gone.iter().filter(|l| l.contains(" rule ")).cloned().collect();
    unmade.sort();
    rules_gone.sort();
    assert_eq!(rules_gone, unmade);
    assert_eq!(gone.len(), 10, "{gone:?}");
    run(&want(""), &mut have);
    assert_eq!(have.rules, with_rules().rules);
    assert!(have.routes.iter().all(|r| r.table < 1000), "{:?}", have.routes);
}

#[test]
fn a_single_uplink_has_its_table_and_asks_the_main_one_first() {
    let mut have = with_rules();
    let first: String = TWO.lines().take(2).map(|l| format!("{l}\n")).collect();
    let made = about_ways(run(&want(&first), &mut have));
    assert_eq!(
        made,
        [
            "+ route 10.1.0.0/24 dev eth0 metric 0 src 10.1.0.5 table 213001",
            "+ route default via 10.1.0.1 dev eth0 metric 0 src 10.1.0.5 table 213001",
            "+ rule from 10.1.0.5 lookup main suppress_prefixlength 0 priority 32764",
            "+ rule from 10.1.0.5 lookup 213001 priority 32765",
            "+ rule from all fwmark 0x1000000/0xff000000 lookup main suppress_prefixlength 0 priority 32764",
            "+ rule from all fwmark 0x1000000/0xff000000 lookup 213001 priority 32765",
        ]
    );
}

/// Wishes beside TWO, with these sources and their uplinks.
fn routed(text: &str, sources: &[(&str, &[&str])]) -> Want {
    let routed = sources.iter().map(|(source, uplinks)| Routed {
        source: Prefix::parse(source).unwrap(),
        uplinks: uplinks.iter().map(ToString::to_string).collect(),
    });
    let numbers = [("eth0".to_owned(), 1), ("eth1".to_owned(), 2)];
    Want { routed: routed.collect(), numbers: numbers.to_vec(), ..want(text) }
}

#[test]
fn a_host_by_its_uplinks_and_what_ends_their_table() {
    let mut have = with_rules();
    run(&want(TWO), &mut have);
    let sources: &[(&str, &[&str])] = &[("10.0.3.0/24", &["eth1"]), ("10.0.0.66", &["eth1", "eth0"])];
    let made = about_ways(run(&routed(TWO, sources), &mut have));
    let list = |line: &&String| line.contains("table 213") || line.contains("lookup 213") && line.contains("from 10.0");
    assert_eq!(
        made.iter().filter(list).collect::<Vec<_>>(),
        [
            "+ route unreachable default metric 4294967294 table 213020000",
            "+ route unreachable default metric 4294967294 table 213020100",
            "+ route default via 10.1.0.1 dev eth0 metric 2000 src 10.1.0.5 table 213020100",
            "+ route default via 10.2.0.1 dev eth1 metric 1000 src 10.2.0.5 table 213020000",
            "+ route default via 10.2.0.1 dev eth1 metric 1000 src 10.2.0.5 table 213020100",
            "+ rule from 10.0.0.66 lookup 213020100 priority 32765",
            "+ rule from 10.0.3.0/24 lookup 213020000 priority 32765",
        ]
    );
    let before = |ip: &str| format!("+ rule from {ip} lookup main suppress_prefixlength 0 priority 32763");
    assert!(made.contains(&before("10.0.3.0/24")) && made.contains(&before("10.0.0.66")), "{made:?}");
    // Answers come before them, so that they leave by the uplink that was asked.
    let answer = have.rules.iter().find(|r| r.table == 213_001 && !r.specific && r.mark != 0).unwrap();
    assert_eq!(answer.priority, 32_764);

    // A bad one goes behind; a lost lease leaves what ends the table.
    let bad = Want { bad: vec!["eth1".into()], ..routed(TWO, sources) };
    let moved = about_ways(run(&bad, &mut have));
    assert!(moved.contains(&"+ route default via 10.2.0.1 dev eth1 metric 101000 src 10.2.0.5 table 213020100".into()));
    let first: String = TWO.lines().take(2).map(|l| format!("{l}\n")).collect();
    run(&routed(&first, sources), &mut have);
    let left =
        |table: u32| have.routes.iter().filter(|r| r.table == table).map(|r| (r.unicast, r.metric)).collect::<Vec<_>>();
    assert_eq!(
        (left(213_020_000), left(213_020_100)),
        (vec![(false, u32::MAX - 1)], vec![(false, u32::MAX - 1), (true, 2000)])
    );
    // When nothing asks for them any more, the rule goes before the table.
    let gone = about_ways(run(&want(&first), &mut have));
    let place = |what: &str| gone.iter().position(|l| l.contains(what)).unwrap();
    assert!(place("- rule from 10.0.3.0/24 lookup 213020000") < place("- route unreachable"), "{gone:?}");
    assert!(!have.routes.iter().any(|r| r.table > 213_999), "{:?}", have.routes);
}

#[test]
fn a_host_comes_before_the_network_that_it_is_in() {
    let mut have = with_rules();
    let sources: &[(&str, &[&str])] =
        &[("10.0.0.0/16", &["eth0"]), ("10.0.3.7", &["eth1"]), ("10.0.3.0/24", &["eth0", "eth1"])];
    run(&routed(TWO, sources), &mut have);
    let priority = |source: &str, specific| {
        let source = Prefix::parse(source);
        have.rules.iter().find(|r| r.source == source && r.specific == specific).unwrap().priority
    };
    assert_eq!(["10.0.0.0/16", "10.0.3.0/24", "10.0.3.7"].map(|s| priority(s, false)), [32_765, 32_764, 32_763]);
    assert_eq!(["10.0.0.0/16", "10.0.3.0/24", "10.0.3.7"].map(|s| priority(s, true)), [32_761; 3]);
    let answers =
        |r: &&Rule| r.mark != 0 || r.source.is_some_and(|s| s.is_host() && !s.contains("10.0.3.7".parse().unwrap()));
    let ours = have.rules.iter().filter(|r| r.protocol == PROTOCOL).filter(answers);
    assert_eq!(ours.map(|r| r.priority).max(), Some(32_762));
}

#[test]
fn without_rules_in_the_kernel_nothing_ends_the_main_table() {
    let mut have = machine();
    let made = run(&routed(TWO, &[("10.0.3.0/24", &["eth1"])]), &mut have);
    assert!(!made.iter().any(|l| l.contains("unreachable default") || l.contains("213")), "{made:?}");
    let notes = plan(&routed(TWO, &[("10.0.3.0/24", &["eth1"])]), &have, &Memory::default()).notes;
    assert_eq!(notes, ["fw.conf: route_by: this kernel has no policy routing for IPv4: left out"]);
}

#[test]
fn no_ways_without_rules_in_the_kernel_nor_around_a_default_of_somebody_else() {
    assert_eq!(about_ways(run(&want(TWO), &mut machine())), [] as [&str; 0]);
    let vpn = foreign_route("0/0", 4, 50);
    for (route, wanted) in
        [(vpn.clone(), 0), (Route { unicast: false, ..vpn.clone() }, 0), (Route { metric: 700, ..vpn }, 16)]
    {
        let mut have = with_rules();
        run(&want(TWO), &mut have);
        have.routes.push(route);
        run(&want(TWO), &mut have);
        let ours = have.rules.iter().filter(|r| r.protocol == PROTOCOL).count();
        assert_eq!(ours + have.routes.iter().filter(|r| r.table > 255).count(), wanted);
    }
}

#[test]
fn an_uplink_whose_interface_is_not_there_is_no_second_one() {
    let mut have = with_rules();
    have.links.retain(|l| l.name != "eth1");
    let made = about_ways(run(&want(TWO), &mut have));
    assert!(made.len() == 6 && !made.iter().any(|l| l.contains("213002") || l.contains("32763")), "{made:?}");
}

#[test]
fn a_rule_of_somebody_else_counts_and_stays() {
    let mut have = with_rules();
    run(&want(TWO), &mut have);
    for rule in &mut have.rules {
        rule.protocol = 3;
    }
    let before = have.rules.clone();
    assert_eq!(run(&want(TWO), &mut have), [] as [&str; 0]);
    run(&want(""), &mut have);
    assert_eq!(have.rules, before);
    // With our number on it, but not as ours are: nothing that fw could name to the kernel.
    have.rules.push(Rule { plain: false, protocol: PROTOCOL, ..before[0] });
    assert_eq!(run(&want(""), &mut have), [] as [&str; 0]);
}

/// The interface by which the kernel sends a packet of this host to the Internet; `None`: it is
/// unreachable.
fn leaves_by(have: &Have, host: &str) -> Option<u32> {
    let host = host.parse().unwrap();
    let mut rules: Vec<&Rule> = have.rules.iter().filter(|r| r.v4 && r.mark == 0).collect();
    rules.sort_by_key(|r| r.priority);
    let of_host = rules.iter().filter(|r| r.source.is_none_or(|source| source.contains(host)) && !r.specific);
    let tables = of_host.map(|r| have.routes.iter().filter(|route| route.table == r.table));
    let best = |routes: &mut dyn Iterator<Item = &Route>| {
        let defaults = routes.filter(|r| r.destination == Prefix::parse("0/0").unwrap());
        defaults.min_by_key(|r| r.metric).map(|r| Some(r.index).filter(|_| r.unicast))
    };
    tables.filter_map(|mut routes| best(&mut routes)).next().flatten()
}

/// Whatever comes and goes, and wherever fw is killed: a host of `route_by` never leaves by an
/// uplink that its list does not have, and always by one that it has when that is there.
#[test]
fn at_no_step_of_any_change_a_host_leaves_by_an_uplink_that_is_not_its_own() {
    let uplinks = ["eth0", "eth1"];
    let lists: [&[&str]; 4] = [&["eth0"], &["eth1"], &["eth0", "eth1"], &["eth1", "eth0"]];
    let around = ["10.0.0.0/16", "10.0.3.0/25", "10.0.3.128/25", "10.0.9.0/24", "10.0.3.7"];
    for seed in 0..60 {
        let mut rng = Rng::seeded(seed);
        let mut have = with_rules();
        // One host has its list throughout, the networks around it change theirs.
        let own = lists[rng.next_u32() as usize % lists.len()];
        let allowed: Vec<u32> = own.iter().map(|name| have.link(name).unwrap().index).collect();
        let mut is_settled = false;
        for _ in 0..25 {
            let mut sources: Vec<(&str, &[&str])> = vec![("10.0.3.9", own)];
            sources.extend(
                around.iter().filter_map(|s| Some((*s, *lists.get(rng.next_u32() as usize % (2 * lists.len()))?))),
            );
            let leased: Vec<bool> = uplinks.iter().map(|_| !rng.next_u32().is_multiple_of(3)).collect();
            let lines = TWO.lines().enumerate().filter(|(n, _)| *n == 0 || leased[n - 1]);
            let text: String = lines.map(|(_, line)| format!("{line}\n")).collect();
            let bad = uplinks.iter().filter(|_| rng.next_u32().is_multiple_of(3)).map(ToString::to_string).collect();
            let wanted = Want { bad, ..routed(&text, &sources) };
            let plan = plan(&wanted, &have, &Memory::default());
            // fw may be killed after any step.
            let steps = if rng.next_u32().is_multiple_of(3) {
                rng.next_u32() as usize % (plan.changes.len() + 1)
            } else {
                usize::MAX
            };
            for change in plan.changes.iter().take(steps) {
                step(&mut have, change);
                let by = leaves_by(&have, "10.0.3.9");
                assert!(!is_settled || by.is_none_or(|index| allowed.contains(&index)), "{seed}: {change}: {by:?}");
            }
            if steps > plan.changes.len() {
                is_settled = true;
                let first = own.iter().zip(&allowed).filter(|(name, _)| leased[usize::from(**name == "eth1")]);
                let good = |name: &str| !wanted.bad.contains(&name.to_owned());
                let first =
                    first.clone().find(|(name, _)| good(name)).or(first.clone().next()).map(|(_, index)| *index);
                assert_eq!(leaves_by(&have, "10.0.3.9"), first, "{seed}: {sources:?} {leased:?} {:?}", wanted.bad);
                assert_eq!(super::plan(&wanted, &have, &Memory::default()).changes, [], "{seed}: second plan");
            }
        }
    }
}
