//! Power cuts at any moment: the next boot finds only what is on the disk.
//!
//! A cut is a copy of the disk while the machine stands still, so one run gives many cuts. A second
//! machine, which boots from the last copy, examines all of them. The kernel writes the disk as it
//! likes: data that no program has forced out may be missing.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use testkit::dhcpd::{Config, Dhcpd, MessageType};
use testkit::vm::{Kit, SERVICES, Wire};

use crate::guest::{Guest, image, with_cable};

/// The number of cuts, the one after the first lease included. The end of the machine is one more.
const CUTS: u8 = 3;
/// Writes numbered lines, some fifty a second, so that a log of 3000 bytes is rotated about once a
/// second.
const TALKER: &str = "#!/bin/sh
n=0
while :; do
	for i in 1 2 3 4 5 6 7 8 9 10; do n=$((n + 1)); echo line $n; done
	usleep 150000
done
";
/// Puts everything that is written on the disk: the services with their supervise/, the logs, the
/// state and /etc.
const DISK: &str = "for module in $(cat /lib/modules/disk); do insmod $module; done
mkdir /disk; mount -t ext4 /dev/vda /disk
if ! [ -d /disk/service ]; then
	cp -a /var/service /disk/service; mkdir /disk/state /disk/etc; echo '192.0.2.7 nas' >/disk/etc/hosts; sync
fi
mount -o bind /disk/service /var/service
export LOG_DIR=/disk/log ZCIP_STATE=/disk/state UDHCPC_ARGS='--state /disk/state' FW_ETC=/disk/etc";

#[test]
fn after_a_power_cut_at_any_moment_everything_is_whole() {
    with_cable(|lab| {
        let kit = Kit::find().unwrap();
        let disk = lab.dir().join("disk");
        let wire = Wire::without_server(lab);
        format(&kit, &wire, &disk);
        let server = Config::for_router(Ipv4Addr::new(192, 0, 2, 1));
        let server = Dhcpd::start(wire.net(), "tap0", server).unwrap();
        let mut guest = Guest::boot_at(lab, &kit, wire, on_disk(&kit), DISK, &drives(&[&disk]));
        guest.wait("the first lease", |guest| guest.address("eth0").as_deref() == Some("192.0.2.100"));
        let cuts: Vec<PathBuf> = (0..CUTS).map(|n| lab.dir().join(format!("cut{n}"))).collect();
        for (n, cut) in cuts.iter().enumerate() {
            if n > 0 {
                another_address(&mut guest, &server, 100 + n as u8);
            }
            if n % 2 == 0 {
                // svlogd's fsync(2) writes all names to the disk, but perhaps not the content of
                // the files.
                let remembered = format!("grep -c \"'192.0.2.{}'\" /disk/state/lease_eth0.ipconf", 100 + n);
                guest.wait("the state", |guest| guest.run(&remembered) == "1\n");
                guest.wait("what fw writes", |guest| guest.run("ls -1 /disk/etc").lines().count() == 3);
                let files = old_files(&mut guest);
                guest.wait("a rotation", |guest| old_files(guest) != files);
            }
            guest.machine.monitor("stop");
            std::fs::copy(&disk, cut).unwrap();
            guest.machine.monitor("cont");
        }
        let wire = guest.cut();
        let discovers = server.count(MessageType::Discover);
        let all: Vec<&Path> = [&disk].into_iter().chain(&cuts).map(PathBuf::as_path).collect();
        let mut guest = Guest::boot_at(lab, &kit, wire, on_disk(&kit), DISK, &drives(&all));
        guest.wait("the address of before", |guest| guest.address("eth0") == Some(format!("192.0.2.{}", 99 + CUTS)));
        for n in 0..CUTS {
            whole(&mut guest, n);
        }
        assert_eq!(server.count(MessageType::Discover), discovers, "it was asked for");
        guest.power_off();
    });
}

fn on_disk(kit: &Kit) -> testkit::vm::Image {
    let mut image = image(kit, &SERVICES);
    image.modules("disk", &["virtio_blk", "ext4"]);
    image.script("/var/service/talker/run", TALKER);
    image.service("fw/log", "talker/log");
    // svlogd looks for its configuration in the directory of the log.
    image.script("/var/service/talker/log/run", "#!/bin/sh\nmkdir -p $LOG_DIR/talker\nprintf 's3000\\nn9\\n' >$LOG_DIR/talker/config\nexec svlogd -tt $LOG_DIR/talker\n");
    image
}

/// Makes a small file system with a journal.
fn format(kit: &Kit, wire: &Wire, disk: &Path) {
    std::fs::File::create(disk).and_then(|file| file.set_len(12 << 20)).unwrap();
    let mkfs = kit.program("mkfs.ext4").display().to_string();
    wire.net().run(&[&mkfs, "-q", "-F", "-b", "1024", "-J", "size=1", &disk.display().to_string()]);
}

fn drives(disks: &[&Path]) -> Vec<String> {
    let drive = |disk: &&Path| ["-drive".to_owned(), format!("file={},format=raw,if=virtio", disk.display())];
    disks.iter().flat_map(drive).collect()
}

/// Kills the client. The server has forgotten it and gives it 192.0.2.LAST.
fn another_address(guest: &mut Guest, server: &Dhcpd, last: u8) {
    server.configure(|config| config.first = Ipv4Addr::new(192, 0, 2, last));
    server.forget_bindings();
    guest.run("kill -9 $(pidof udhcpc)");
    guest.wait("another address", |guest| guest.address("eth0") == Some(format!("192.0.2.{last}")));
}

fn old_files(guest: &mut Guest) -> String {
    guest.run("ls /disk/log/talker/@*")
}

/// Everything that the cut left is complete.
fn whole(guest: &mut Guest, n: u8) {
    let letter = char::from(b'b' + n);
    guest.run(&format!("mkdir -p /cut; mount -t ext4 /dev/vd{letter} /cut"));
    assert_eq!(guest.run("find /cut/state /cut/etc -size 0 ! -name '.*'"), "", "cut {n}");
    let hosts = guest.run("cat /cut/etc/hosts");
    assert!(hosts.starts_with("192.0.2.7 nas\n"), "cut {n}: {hosts:?}");
    let resolv = guest.run("cat /cut/etc/resolv.conf");
    // Between two leases there is no name server.
    let served = resolv.ends_with("\nnameserver 192.0.2.1\n") || n % 2 == 1;
    assert!(resolv.starts_with("# Made by fw") && resolv.ends_with('\n') && served, "cut {n}: {resolv:?}");
    let lease = guest.run("cat /cut/state/lease_eth0.ipconf");
    let log = guest.run("(cd /cut/log/talker; cat @* current; cd /; umount /cut) | cut -d' ' -f2-");
    let numbers: Vec<u64> = log.lines().map_while(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    // The end may be missing, and also a part of the last line.
    assert!(numbers.len() > 50 && numbers.len() + 1 >= log.lines().count(), "cut {n}: {log}");
    let complete = numbers.get(..numbers.len() - 1).unwrap_or_default();
    assert!(complete.windows(2).all(|pair| pair[1] == pair[0] + 1), "cut {n}: {log}");
    if n % 2 == 1 && lease.contains("No such file") {
        // The server refused the old address, and the name of the new record is not on the disk
        // yet.
        return;
    }
    let ip = lease.lines().find_map(|line| line.strip_prefix("ip[$cfg]='192.0.2.")?.strip_suffix('\''));
    assert!(ip.is_some_and(|ip| [99 + n, 100 + n].contains(&ip.parse().unwrap())), "cut {n}: {lease:?}");
    assert!(lease.ends_with("serverid[$cfg]='192.0.2.1'\n"), "cut {n}: {lease:?}");
}
