//! Rules and tables of uplinks.

use super::*;

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
                format!("+ rule from {from} lookup 254 suppress_prefixlength 0 priority 32764"),
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
    let unmade: Vec<String> = [rules("10.1.0.5", 1), rules("10.2.0.5", 2)].concat();
    assert_eq!(gone[..12], unmade.iter().map(|l| l.replacen('+', "-", 1)).collect::<Vec<_>>());
    assert_eq!(gone.len(), 16, "{gone:?}");
    assert_eq!(have.rules, with_rules().rules);
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
    assert_eq!(about_ways(run(&want(TWO), &mut have)), [] as [&str; 0]);
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
