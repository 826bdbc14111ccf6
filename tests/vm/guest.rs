//! The machine under test: our runsvdir over service directories as they are shipped, and what other people's programs say
//! of it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use testkit::vm::{AGENT, APPLETS, CARD, FIREWALL, Image, Kit, Machine, Wire};
use testkit::{Lab, Value, isolated_for, possible, wait_until};

/// For any event, on a busy host.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// For a whole test.
const LIMIT: Duration = Duration::from_secs(400);
/// For all but a debug build of netsv a quarter of it would do.
const MEGABYTES: u32 = 384;
/// A qemu takes a processor, and the host may have two.
static ONE: Mutex<()> = Mutex::new(());

/// Runs `test` in a world of its own with a kit for a machine, one at a time.
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

/// A machine and the far end of its cable.
pub(crate) struct Guest {
    pub(crate) machine: Machine,
    wire: Wire,
}

/// The image of a machine with these services, made of services/; the caller adds to it.
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
    /// Boots it. `more` is run by its init after the drivers are there, before the services.
    pub(crate) fn boot(lab: &Lab, kit: &Kit, image: Image, more: &str) -> Guest {
        Guest::boot_at(lab, kit, Wire::build(lab), image, more, &[])
    }

    /// The same at the end of this wire, in a qemu with these options.
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

    /// Waits; when in vain it shows what the machine's services have said.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Guest) -> bool) {
        if testkit::poll_for(SOON, || condition(self).then_some(())).is_none() {
            panic!("waited in vain for: {what}\n{}", self.all());
        }
    }

    /// For a failed test.
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

    /// Interfaces of the usable default routes that are not demoted, best first.
    pub(crate) fn good_uplinks(&mut self) -> Vec<String> {
        self.default_routes().into_iter().filter(|(_, metric)| *metric < 10_000).map(|(name, _)| name).collect()
    }

    /// fw has seen that its link is lost: its default route is there, at the end of the line.
    pub(crate) fn is_demoted(&mut self, interface: &str) -> bool {
        let routes = self.json(&format!("-4 route show default dev {interface}"));
        let metrics: Vec<_> = routes.as_array().into_iter().flatten().map(|route| route["metric"].as_u64()).collect();
        !metrics.is_empty() && metrics.iter().all(|metric| metric.is_some_and(|metric| metric > 10_000))
    }

    /// The interface that a packet to the outside would take.
    pub(crate) fn way_out(&mut self) -> Option<String> {
        Some(self.json("route get 203.0.113.9")[0]["dev"].as_str()?.to_owned())
    }

    /// Its global IPv4 address.
    pub(crate) fn address(&mut self, interface: &str) -> Option<String> {
        Some(self.global(interface)?["local"].as_str()?.to_owned())
    }

    /// What is left of the kernel's time for it, in seconds; `u32::MAX`: for ever.
    pub(crate) fn lifetime(&mut self, interface: &str) -> u64 {
        self.global(interface).and_then(|info| info["valid_life_time"].as_u64()).unwrap_or(0)
    }

    /// All that ip says of that address.
    fn global(&mut self, interface: &str) -> Option<Value> {
        let links = self.json(&format!("-4 address show dev {interface} scope global"));
        let mut infos = links.as_array().into_iter().flatten().flat_map(|link| link["addr_info"].as_array()).flatten();
        // ip leaves an empty object for an address of another scope.
        infos.find(|info| info["local"].is_string()).cloned()
    }

    /// Its index, when it is there.
    pub(crate) fn ifindex(&mut self, interface: &str) -> Option<u64> {
        self.json(&format!("link show dev {interface}"))[0]["ifindex"].as_u64()
    }

    /// Whether it is up with carrier, as the kernel has it.
    pub(crate) fn is_up(&mut self, interface: &str) -> bool {
        self.json(&format!("link show dev {interface}"))[0]["operstate"] == "UP"
    }

    /// The router of its default route answers a ping through it.
    pub(crate) fn router_answers(&mut self, interface: &str) -> bool {
        let routes = self.json(&format!("-4 route show default dev {interface}"));
        let Some(router) = routes[0]["gateway"].as_str().map(str::to_owned) else { return false };
        self.run(&format!("ping -c 1 -W 5 -I {interface} {router}")).contains(" 0% packet loss")
    }

    /// The process that a service runs.
    pub(crate) fn pid(&mut self, service: &str) -> Option<u32> {
        let said = self.run(&format!("cat /var/service/{service}/supervise/stat /var/service/{service}/supervise/pid"));
        let (stat, pid) = said.split_once('\n')?;
        if stat.starts_with("run") { pid.trim().parse().ok() } else { None }
    }

    /// Processes of this name, in order.
    pub(crate) fn pids(&mut self, name: &str) -> Vec<u32> {
        let mut pids: Vec<u32> =
            self.run(&format!("pidof {name}")).split_whitespace().filter_map(|p| p.parse().ok()).collect();
        pids.sort_unstable();
        pids
    }

    /// How often a service's log has the text.
    pub(crate) fn logged(&mut self, service: &str, text: &str) -> usize {
        self.run(&format!("grep -cF '{text}' /var/log/service/{service}/current")).trim().parse().unwrap_or(0)
    }

    /// The power is cut; what is left is the cable.
    pub(crate) fn cut(self) -> Wire {
        self.wire
    }

    /// The signal of man/runsvdir.8 ends all services, and then the machine.
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

/// Waits for something outside the machine.
pub(crate) fn wait_outside(what: &str, condition: impl FnMut() -> bool) {
    wait_until(what, SOON, condition);
}
