//! The machine under test: our runsvdir over service directories as they are shipped, and what
//! independent programs report about it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testkit::vm::{AGENT, APPLETS, CARD, FIREWALL, Image, Kit, Machine, Wire};
use testkit::{Lab, Value, isolated_for, possible, wait_until};

/// The limit for any event on a busy host.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// The limit for a whole test.
const LIMIT: Duration = Duration::from_secs(400);
/// A quarter of it is enough for everything except a debug build of netsv.
const MEGABYTES: u32 = 384;
/// A qemu keeps one processor busy, and the host may have two.
static ONE: Mutex<()> = Mutex::new(());

/// Runs `test` with a kit for a machine in a world of its own, one test at a time.
pub(crate) fn with_kit<F: FnOnce(&Lab)>(test: F) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let kit = Kit::find().map(drop);
    isolated_for(LIMIT, possible(&["dnsmasq", "nft"]).and(kit), test);
}

/// The same for a test that needs the far end of the cable for itself.
pub(crate) fn with_cable<F: FnOnce(&Lab)>(test: F) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let kit = Kit::find().map(drop);
    isolated_for(LIMIT, possible(&["nft"]).and(kit).and(Wire::possible()), test);
}

/// A machine, and the far end of its cable.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    wire: Wire,
}

/// Makes the image of a machine with these services from services/; the caller adds to it.
pub(crate) fn image(kit: &Kit, services: &[(&str, &str)]) -> Image {
    let mut image = Image::new(kit);
    image.netsv(Path::new(env!("CARGO_BIN_EXE_netsv")));
    image.program(&kit.program("nft"), "/sbin/nft");
    for (kind, name) in services {
        image.service(kind, name);
    }
    image.modules("drivers", &[&CARD[..], &FIREWALL].concat());
    image
}

impl Guest {
    /// Boots the image. Its init runs `more` when the drivers are loaded, before the services
    /// start.
    pub(crate) fn boot(lab: &Lab, kit: &Kit, image: Image, more: &str) -> Guest {
        Guest::boot_at(lab, kit, Wire::build(lab), image, more, &[])
    }

    /// Boots the image at the end of this wire, in a qemu with these options.
    pub(crate) fn boot_at(lab: &Lab, kit: &Kit, wire: Wire, mut image: Image, more: &str, qemu: &[String]) -> Guest {
        let init = format!(
            "#!/bin/sh
export PATH={APPLETS}:/bin:/sbin:/usr/bin SVDIR=/var/service UDHCPC={APPLETS}/udhcpc
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs run /run
{AGENT}
for module in $(cat /lib/modules/drivers); do insmod $module; done
{more}
runsvdir -w -P /var/service >/run/runsvdir.log 2>&1 &
echo $! >/run/runsvdir.pid
wait $!
echo \"runsvdir: $?\" >/dev/console
poweroff -f
"
        );
        image.script("/init", &init);
        let machine = Machine::boot(lab, kit, &wire, image, MEGABYTES, qemu).expect("boot");
        Guest { machine, wire }
    }

    /// Runs a line in the guest.
    pub(crate) fn run(&mut self, line: &str) -> String {
        self.machine.run(line)
    }

    /// Waits for a condition; on failure it shows the logs of the machine's services.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Guest) -> bool) {
        if testkit::poll_for(SOON, || condition(self).then_some(())).is_none() {
            panic!("waited in vain for: {what}\n{}", self.all());
        }
    }

    /// The logs of all services, for a failed test.
    fn all(&mut self) -> String {
        let said = self.machine.try_run(
            "sv status | cat; tail -n 40 /var/log/service/*/current /run/runsvdir.log; ip addr; ip route; ps | grep -v '\\['",
        );
        format!("{}\n{}", said.unwrap_or_else(|e| e.to_string()), self.machine.console())
    }

    fn json(&mut self, arguments: &str) -> Value {
        let said = self.run(&format!("/sbin/ip -j {arguments} 2>/dev/null"));
        if said.trim().is_empty() { Value::Array(Vec::new()) } else { serde(&said) }
    }

    /// IPv4 default routes that the kernel uses: (interface, metric), best first.
    pub(crate) fn default_routes(&mut self) -> Vec<(String, u64)> {
        let routes = self.json("-4 route show default");
        let dead = |route: &Value| route["flags"].as_array().into_iter().flatten().any(|flag| flag == "dead");
        let mut found: Vec<_> = (routes.as_array().into_iter().flatten())
            .filter(|route| !dead(route))
            .map(|route| (route["dev"].as_str().unwrap_or_default().to_owned(), route["metric"].as_u64().unwrap_or(0)))
            .collect();
        found.sort_by_key(|(_, metric)| *metric);
        found
    }

    /// The interfaces of the usable default routes that fw has not demoted, the best first.
    pub(crate) fn good_uplinks(&mut self) -> Vec<String> {
        self.default_routes().into_iter().filter(|(_, metric)| *metric < 10_000).map(|(name, _)| name).collect()
    }

    /// fw has seen that the link is lost: the default route is the last in line.
    pub(crate) fn is_demoted(&mut self, interface: &str) -> bool {
        let routes = self.json(&format!("-4 route show default dev {interface}"));
        let metrics: Vec<_> = routes.as_array().into_iter().flatten().map(|route| route["metric"].as_u64()).collect();
        !metrics.is_empty() && metrics.iter().all(|metric| metric.is_some_and(|metric| metric > 10_000))
    }

    /// The interface that a packet to the outside would take.
    pub(crate) fn way_out(&mut self) -> Option<String> {
        Some(self.json("route get 203.0.113.9")[0]["dev"].as_str()?.to_owned())
    }

    /// The interface's global IPv4 address.
    pub(crate) fn address(&mut self, interface: &str) -> Option<String> {
        Some(self.global(interface)?["local"].as_str()?.to_owned())
    }

    /// The kernel's remaining lifetime of the address, in seconds; `u32::MAX` means for ever.
    pub(crate) fn lifetime(&mut self, interface: &str) -> u64 {
        self.global(interface).and_then(|info| info["valid_life_time"].as_u64()).unwrap_or(0)
    }

    /// What ip says about that address.
    fn global(&mut self, interface: &str) -> Option<Value> {
        let links = self.json(&format!("-4 address show dev {interface} scope global"));
        let mut infos = links.as_array().into_iter().flatten().flat_map(|link| link["addr_info"].as_array()).flatten();
        // ip leaves an empty object for an address of another scope.
        infos.find(|info| info["local"].is_string()).cloned()
    }

    /// The interface's index, if it exists.
    pub(crate) fn ifindex(&mut self, interface: &str) -> Option<u64> {
        self.json(&format!("link show dev {interface}"))[0]["ifindex"].as_u64()
    }

    /// Whether the kernel says that the interface is up and has carrier.
    pub(crate) fn is_up(&mut self, interface: &str) -> bool {
        self.json(&format!("link show dev {interface}"))[0]["operstate"] == "UP"
    }

    /// Whether the router of the interface's default route answers a ping through it.
    pub(crate) fn router_answers(&mut self, interface: &str) -> bool {
        let routes = self.json(&format!("-4 route show default dev {interface}"));
        let Some(router) = routes[0]["gateway"].as_str().map(str::to_owned) else { return false };
        self.run(&format!("ping -c 1 -W 5 -I {interface} {router}")).contains(" 0% packet loss")
    }

    /// The process id of a service.
    pub(crate) fn pid(&mut self, service: &str) -> Option<u32> {
        let said = self.run(&format!("cat /var/service/{service}/supervise/stat /var/service/{service}/supervise/pid"));
        let (stat, pid) = said.split_once('\n')?;
        if stat.starts_with("run") { pid.trim().parse().ok() } else { None }
    }

    /// The processes with this name, in order.
    pub(crate) fn pids(&mut self, name: &str) -> Vec<u32> {
        let mut pids: Vec<u32> =
            self.run(&format!("pidof {name}")).split_whitespace().filter_map(|p| p.parse().ok()).collect();
        pids.sort_unstable();
        pids
    }

    /// How often the text is in a service's log.
    pub(crate) fn logged(&mut self, service: &str, text: &str) -> usize {
        self.run(&format!("grep -cF '{text}' /var/log/service/{service}/current")).trim().parse().unwrap_or(0)
    }

    /// Cuts the power and returns the cable.
    pub(crate) fn cut(self) -> Wire {
        self.wire
    }

    /// Sends the signal of man/runsvdir.8, which ends all services; then the machine goes off.
    pub(crate) fn power_off(mut self) {
        self.run("kill -TERM $(cat /run/runsvdir.pid)");
        let status = self.machine.wait_off(SOON).unwrap_or_else(|| panic!("it stays on:\n{}", self.all()));
        assert!(status.success(), "qemu: {status}");
        let console = self.machine.console();
        assert!(console.contains("runsvdir: 0"), "{console}");
    }
}

fn serde(text: &str) -> Value {
    text.parse().unwrap_or_else(|e| panic!("not JSON: {e}: {text}"))
}

/// Waits for an event outside of the machine.
pub(crate) fn wait_outside(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, SOON, condition);
}
