//! The acts of the demo, in order. Each act waits, with a bound, for its events, and fails with the
//! event that did not come.

use std::time::{Duration, Instant};

use testkit::{kill_9, pids_where, poll_for};

use crate::story::{Story, Told};

/// The limit for a lease, a route, or a switch-over.
const SOON: Duration = Duration::from_secs(10);
/// The limit for the hold-down of services/ifplugd_if.
const HOLD_DOWN: Duration = Duration::from_secs(30);

/// A default route's metric is above this while its uplink is bad (fw.conf: demote_metric is
/// 20000).
const DEMOTED: u64 = 10_000;

/// Plays all acts.
pub(crate) fn tell(story: &mut Story) -> Told {
    supervisor_up(story)?;
    first_cable(story)?;
    second_cable(story)?;
    cable_pulled(story)?;
    cable_back(story)?;
    client_killed(story)?;
    supervisor_killed(story)?;
    fw_killed(story)?;
    router_silent(story)?;
    router_back(story)?;
    no_server(story)?;
    server_back(story)
}

fn ms(from: Instant, to: Instant) -> u128 {
    to.saturating_duration_since(from).as_millis()
}

/// Whether the best default route of the appliance leaves through `interface`.
fn best_is(story: &Story, interface: &str) -> Option<()> {
    story.world.home.default_routes().first().filter(|(dev, _, _)| dev == interface).map(|_| ())
}

/// Two default routes, none of them demoted, eth0's the best.
fn both_good(story: &Story) -> Option<()> {
    let routes = story.world.home.default_routes();
    let good = routes.iter().filter(|(_, _, metric)| *metric < DEMOTED).count();
    (good == 2 && routes.first()?.0 == "eth0").then_some(())
}

fn supervisor_up(story: &mut Story) -> Told {
    story.begin("Act 0. The appliance boots; no cable is plugged in");
    story.until("the LAN address is set by fw", SOON, || {
        (story.world.home.addresses("lan0") == ["10.0.0.1/24"]).then_some(())
    })?;
    story.until("the LAN host reaches the appliance", SOON, || story.world.lan.pings("10.0.0.1").then_some(()))?;
    story.result("the services run, the LAN is up, both uplinks wait for a cable");
    Ok(())
}

fn first_cable(story: &mut Story) -> Told {
    let begun = story.begin("Act 1. The cable of eth0 is plugged in: lease, route, first ping");
    story.cue("cable of eth0 plugged in");
    story.world.isp_a.cable.plug();
    let address = story.event("an address on eth0", begun, HOLD_DOWN, |e| e.text.starts_with("+ address 192.0.2."))?;
    let route =
        story.event("a default route over eth0", begun, SOON, |e| e.text.starts_with("+ default route eth0"))?;
    let ping = story.until("a ping of the LAN host is answered", SOON, || story.lan_pings.first_answer(begun))?;
    story.result(&format!(
        "address after {} ms, default route after {} ms, first ping of the LAN host after {} ms",
        ms(begun, address.at),
        ms(begun, route.at),
        ms(begun, ping)
    ));
    story.start_home_pings();
    let pings = story.home_pings.as_ref();
    story.until("a ping of the appliance is answered", SOON, || pings?.first_answer(begun))?;
    Ok(())
}

fn second_cable(story: &mut Story) -> Told {
    let title = "Act 2. The cable of eth1 is plugged in: a standby";
    let begun = story.begin(title);
    story.cue("cable of eth1 plugged in");
    story.world.isp_b.cable.plug();
    story.until("two good default routes, eth0 preferred", HOLD_DOWN, || both_good(story))?;
    story.end(title, begun)
}

fn cable_pulled(story: &mut Story) -> Told {
    let title = "Act 3. The cable of eth0 is pulled: failover";
    let begun = story.begin(title);
    story.cue("cable of eth0 pulled");
    story.world.isp_a.cable.pull();
    story.until("traffic leaves through eth1", SOON, || {
        (story.world.home.route_to("203.0.113.10")? == "eth1").then_some(())
    })?;
    story.until("eth0's default route is no longer the best", SOON, || best_is(story, "eth1"))?;
    story.end(title, begun)?;
    if let Some(after) = story.flowing_after(begun) {
        story.result(&format!("pings flow over eth1 {} ms after the cable was pulled", after.as_millis()));
    }
    Ok(())
}

fn cable_back(story: &mut Story) -> Told {
    let title = "Act 4. The cable is back: eth0 again, after the hold-down";
    let begun = story.begin(title);
    story.cue("cable of eth0 plugged in");
    story.world.isp_a.cable.plug();
    let back = story.until("eth0 is preferred again", HOLD_DOWN, || {
        both_good(story)?;
        Some(begun.elapsed())
    })?;
    story.until("traffic leaves through eth0", SOON, || {
        (story.world.home.route_to("203.0.113.10")? == "eth0").then_some(())
    })?;
    story.result(&format!("eth0 is preferred again {} ms after its cable was back", back.as_millis()));
    story.end(title, begun)
}

fn client_killed(story: &mut Story) -> Told {
    let title = "Act 5. The DHCP client of eth0 is killed with -9";
    let begun = story.begin(title);
    let old = story.until("dhcp_eth0 runs", SOON, || story.appliance.service_pid("dhcp_eth0"))?;
    story.cue(&format!("kill -9 {old} (udhcpc of eth0)"));
    kill_9(old);
    let new = story.appliance.poll_new_pid("dhcp_eth0", old, SOON).ok_or("a new client")?;
    story.cue(&format!("a new client runs: {new}"));
    story.until("its lease and route are there", SOON, || best_is(story, "eth0"))?;
    story.end(title, begun)
}

fn clients_of_eth0() -> usize {
    pids_where(|argv| argv.iter().any(|a| a.ends_with("udhcpc")) && argv.iter().any(|a| a.contains("eth0"))).len()
}

fn supervisor_killed(story: &mut Story) -> Told {
    let title = "Act 6. The runsv of dhcp_eth0 is killed with -9";
    let begun = story.begin(title);
    let old = story.appliance.runsv_pid("dhcp_eth0").ok_or("no runsv of dhcp_eth0")?;
    story.cue(&format!("kill -9 {old} (runsv dhcp_eth0)"));
    kill_9(old);
    story.until("runsvdir starts another runsv", SOON, || {
        story.appliance.runsv_pid("dhcp_eth0").filter(|pid| *pid != old)
    })?;
    story.until("the client is supervised again", SOON, || story.appliance.service_pid("dhcp_eth0"))?;
    story.until("there is one client of eth0, not two", SOON, || (clients_of_eth0() == 1).then_some(()))?;
    story.until("its route is there", SOON, || best_is(story, "eth0"))?;
    story.end(title, begun)
}

fn fw_killed(story: &mut Story) -> Told {
    let title = "Act 7. fw is killed with -9 in the middle of its run";
    let begun = story.begin(title);
    let stat = story.appliance.services().join("fw/supervise/stat");
    let mut hit = None;
    for _ in 0..20 {
        story.appliance.run(&["sv", "up", "fw"]);
        // After fw has said `o` it reads and writes.
        let caught = poll_for(Duration::from_millis(100), || {
            let stat = std::fs::read_to_string(&stat).ok().filter(|stat| stat.starts_with("run, want down"));
            stat.and_then(|_| story.appliance.service_pid("fw"))
        });
        if let Some(pid) = caught
            && kill_9(pid)
        {
            hit = Some(pid);
            break;
        }
    }
    let pid = hit.ok_or("fw could not be caught running")?;
    story.cue(&format!("kill -9 {pid} (fw)"));
    story.until("fw has run again to its end", SOON, || {
        let status = story.appliance.run(&["sv", "status", "fw"]);
        (status.starts_with("down: fw") && !status.contains("want up")).then_some(())
    })?;
    story.until("the appliance is as it was: two good default routes, eth0 preferred", SOON, || both_good(story))?;
    story.end(title, begun)
}

fn router_silent(story: &mut Story) -> Told {
    let title = "Act 8. The router of eth0 falls silent, its link stays up";
    let begun = story.begin(title);
    story.cue("isp_a drops whatever comes from the appliance");
    story.world.isp_a.net.silence("customer");
    story.until("traffic leaves through eth1", SOON, || {
        (story.world.home.route_to("203.0.113.10")? == "eth1").then_some(())
    })?;
    story.end(title, begun)?;
    if let Some(after) = story.flowing_after(begun) {
        story.result(&format!("pings flow over eth1 {} ms after the router fell silent", after.as_millis()));
    }
    Ok(())
}

fn router_back(story: &mut Story) -> Told {
    let title = "Act 9. The router is back: eth0 again, after a hold-down";
    let begun = story.begin(title);
    story.cue("isp_a answers again");
    story.world.isp_a.net.speak();
    let back = story.until("eth0 is preferred again", HOLD_DOWN, || {
        both_good(story)?;
        Some(begun.elapsed())
    })?;
    story.result(&format!("eth0 is preferred again {} ms after its router was back", back.as_millis()));
    story.end(title, begun)
}

/// The link-local address of eth1.
fn link_local(story: &Story) -> Option<String> {
    story.world.home.addresses("eth1").into_iter().find(|address| address.starts_with("169.254."))
}

fn no_server(story: &mut Story) -> Told {
    let title = "Act 10. eth1 in a network without a DHCP server: link-local";
    let begun = story.begin(title);
    story.cue("cable of eth1 pulled");
    story.world.isp_b.cable.pull();
    story.until("eth1 has no address any more", HOLD_DOWN, || {
        story.world.home.addresses("eth1").is_empty().then_some(())
    })?;
    story.world.isp_b.dhcpd.set_mode(testkit::dhcpd::Mode::Silent);
    story.world.isp_b.net.address("customer", "169.254.10.20/16");
    let plugged = story.cue("cable of eth1 plugged in; nobody there answers a DISCOVER");
    story.world.isp_b.cable.plug();
    let (address, after) =
        story.until("a link-local address on eth1", HOLD_DOWN, || Some((link_local(story)?, plugged.elapsed())))?;
    story.until("the neighbour at 169.254.10.20 answers", SOON, || {
        story.world.home.pings("169.254.10.20").then_some(())
    })?;
    let routes = story.world.home.default_routes();
    if routes.iter().any(|(interface, _, _)| interface == "eth1") {
        return Err(format!("no default route through eth1: {routes:?}"));
    }
    story.result(&format!(
        "{address} {} ms after the cable (the hold-down of the link included), a neighbour answers, no default route through eth1",
        after.as_millis()
    ));
    story.end(title, begun)
}

fn server_back(story: &mut Story) -> Told {
    let title = "Act 11. A DHCP server appears there: a standby again";
    let begun = story.begin(title);
    story.cue("isp_b's DHCP server answers");
    story.world.isp_b.dhcpd.set_mode(testkit::dhcpd::Mode::Normal);
    let back = story.until("two good default routes, eth0 preferred", HOLD_DOWN, || {
        both_good(story)?;
        Some(begun.elapsed())
    })?;
    story.result(&format!("a lease on eth1 {} ms after its server appeared", back.as_millis()));
    story.end(title, begun)
}
