//! The services of services/ that do not set up the network: a login prompt, a mouse, a meter, an
//! inetd, and the servers of files and time. Each runs with the real program of Debian behind it,
//! under Debian's runit first and then under ours.

#![expect(clippy::disallowed_methods, reason = "starts clients")]

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use testkit::{Lab, Net, USER_NAMESPACE, find_program, holds_for, is_running, isolated, kill_9, wait_for, wait_until};

use crate::ours;
use crate::services::{House, RUNIT, script, under_both};

/// Longer than any step takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(25);
/// For "nothing happens". It is longer than the second that a supervisor waits before it restarts a
/// failed service.
const QUIET: Duration = Duration::from_millis(1500);
/// Whether root is the only user: it is in a user namespace.
fn alone() -> bool {
    std::env::var_os(USER_NAMESPACE).is_some()
}

/// The user that a server becomes in these tests.
fn somebody(name: &'static str) -> &'static str {
    if alone() { "root" } else { name }
}

fn sh(text: &str) {
    let output = Command::new("sh").args(["-ec", text]).output().unwrap();
    assert!(output.status.success(), "{text}: {output:?}");
}

/// Mounts a /dev with the least that programs need, terminals of its own, and no console. It also
/// keeps getty's changes to files elsewhere away from the machine's own files. In a user namespace
/// the terminal can belong to no group except root's.
fn private_dev(lab: &Lab) {
    sh("mkdir /run/dev; mount --rbind /dev /run/dev; mount -t tmpfs -o mode=755 netsv-lab /dev
        for node in null zero full random urandom tty; do : >/dev/$node; mount --bind /run/dev/$node /dev/$node; done
        mkdir /dev/pts; mount -t devpts -o newinstance,ptmxmode=666,mode=620 netsv-lab /dev/pts
        ln -s pts/ptmx /dev/ptmx; ln -s /proc/self/fd /dev/fd
        echo root:x:0: >/run/group; mount --bind /run/group /etc/group");
    lab.cover("/var/log");
}

/// A pseudo terminal under a name of /dev; the test sits at its other end.
struct Terminal {
    master: File,
    /// Kept open: the terminal must not hang up while no other process has it open.
    _slave: OwnedFd,
    seen: RefCell<Vec<u8>>,
}

impl Terminal {
    fn new(name: &str) -> Terminal {
        let pty = openpty(None, None).unwrap();
        fcntl(&pty.master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        symlink(nix::unistd::ttyname(&pty.slave).unwrap(), Path::new("/dev").join(name)).unwrap();
        Terminal { master: File::from(pty.master), _slave: pty.slave, seen: RefCell::default() }
    }

    fn text(&self) -> String {
        let mut part = [0; 4096];
        while let Ok(length @ 1..) = (&self.master).read(&mut part) {
            self.seen.borrow_mut().extend(&part[..length]);
        }
        String::from_utf8_lossy(&self.seen.borrow()).into_owned()
    }

    fn wait(&self, text: &str) {
        wait_until(&format!("{text:?} on the terminal"), SOON, || self.text().contains(text));
    }

    fn forget(&self) {
        self.text();
        self.seen.borrow_mut().clear();
    }

    fn enter(&self, line: &str) {
        writeln!(&self.master, "{line}").unwrap();
    }
}

/// A killed service is started again. A service that is taken down has ended and serves no client.
/// A service that is brought up serves again.
#[track_caller]
fn killed_stopped_and_started(house: &House, name: &str, serves: impl Fn() -> bool) {
    wait_until(&format!("{name} serves"), SOON, &serves);
    let pid = house.wait_pid(name);
    kill_9(pid);
    wait_until(&format!("another {name}"), SOON, || house.pid(name).is_some_and(|next| next != pid));
    wait_until(&format!("{name} serves again"), SOON, &serves);
    let pid = house.wait_pid(name);
    house.sv(&["-w10", "down", name]);
    assert!(!is_running(pid) && !serves(), "{name} serves while it is down");
    house.sv(&["-w10", "up", name]);
    wait_until(&format!("{name} serves at last"), SOON, &serves);
}

/// The same for a program that begins with `text` on a terminal.
#[track_caller]
fn begins_again(house: &House, name: &str, terminal: &Terminal, text: &str) {
    terminal.wait(text);
    let pid = house.wait_pid(name);
    terminal.forget();
    kill_9(pid);
    terminal.wait(text);
    let pid = wait_for(&format!("another {name}"), SOON, || house.pid(name).filter(|next| *next != pid));
    house.sv(&["-w10", "down", name]);
    assert!(!is_running(pid));
    terminal.forget();
    house.sv(&["-w10", "up", name]);
    terminal.wait(text);
}

/// The service has said `text` once, and says no more.
#[track_caller]
pub(crate) fn stays_down(house: &House, name: &str, text: &str, said: impl Fn() -> String) {
    wait_until(&format!("{name} says {text:?}"), SOON, || said().contains(text));
    // Its message may arrive before the supervisor has written that it runs. Until then the status
    // is "down, want up".
    let status = || String::from_utf8(house.command(&["sv", "status", name]).output().unwrap().stdout).unwrap();
    wait_until(&format!("{name} is down"), SOON, || {
        let status = status();
        status.starts_with("down: ") && !status.contains("want up")
    });
    let line = format!("{text}: down until \"sv up {name}\"");
    holds_for(&format!("{name} says it once and stays down"), QUIET, || {
        said().matches(&line).count() == 1 && house.stat(name).starts_with("down")
    });
}

/// The output of a client, or `None` when it failed.
fn client(net: &Net, argv: &[&str]) -> Option<String> {
    let output = net.try_run(argv);
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A directory with one file to serve; every user can read it.
fn site(house: &House) -> PathBuf {
    let root = house.path("site");
    fs::create_dir_all(root.join("pub")).unwrap();
    fs::write(root.join("pub/file"), "hello from here\n").unwrap();
    root
}

/// A file that no client may upload.
fn upload(house: &House) -> PathBuf {
    let path = house.path("upload");
    fs::write(&path, "not wanted\n").unwrap();
    path
}

#[test]
fn getty_asks_for_a_login_on_the_terminal_of_its_name_and_a_login_ends_on_down() {
    isolated(&[&RUNIT[..], &["agetty", "busybox"]].concat(), |lab| {
        private_dev(lab);
        let home = lab.net("home");
        let (tty1, tty2, shell) = (Terminal::new("ttyT1"), Terminal::new("ttyT_2"), Terminal::new("ttyT3"));
        under_both(lab, &home, |house| {
            for terminal in [&tty1, &tty2, &shell] {
                terminal.forget();
            }
            house.copy("getty_tty", "getty_ttyT1");
            // busybox's getty, on a terminal with an underscore in its name.
            house.copy("getty_tty", "getty_ttyT_2");
            house.knob("getty_ttyT_2", "GETTY", "busybox getty -L 0");
            house.copy("getty_tty", "getty_ttyT3");
            house.knob("getty_ttyT3", "GETTY", "agetty -n -l /bin/sh");
            house.copy("getty_tty", "getty_ttyT9");
            house.start();

            tty1.wait(" ttyT1\r\n");
            tty1.wait(" login: ");
            tty2.wait("ttyT_2\r\n");
            tty2.wait(" login: ");
            begins_again(house, "getty_ttyT1", &tty1, " login: ");

            // An interactive shell ignores TERM.
            shell.enter("trap '' TERM; echo $((40 + 2)) of $(tty)");
            shell.wait("42 of /dev/pts/");
            let pid = house.wait_pid("getty_ttyT3");
            house.sv(&["-w10", "down", "getty_ttyT3"]);
            assert!(!is_running(pid));

            stays_down(house, "getty_ttyT9", "getty: no /dev/ttyT9", || house.said());
        });
    });
}

#[test]
fn nmeter_writes_a_line_a_second_to_its_console() {
    isolated(&[&RUNIT[..], &["vmstat"]].concat(), |lab| {
        private_dev(lab);
        let home = lab.net("home");
        let terminal = Terminal::new("ttyT9");
        under_both(lab, &home, |house| {
            terminal.forget();
            house.copy("nmeter", "nmeter");
            house.copy("nmeter", "nmeter-lost");
            house.knob("nmeter", "NMETER_TTY", "/dev/ttyT9");
            house.start();
            let lines = || {
                let figures = |line: &&str| line.trim().starts_with(|c: char| c.is_ascii_digit());
                terminal.text().lines().filter(figures).count()
            };
            wait_until("two lines", SOON, || lines() >= 2);
            begins_again(house, "nmeter", &terminal, "memory");
            wait_until("a line", SOON, || lines() >= 1);
            stays_down(house, "nmeter-lost", "nmeter: no /dev/tty9", || house.said());
        });
    });
}

#[test]
fn clients_and_watchers_without_their_program_say_so_once_and_stay_down() {
    isolated(&RUNIT, |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            let bin = lab.dir().join("bin");
            let services = [
                ("dhcp_if", "dhcp_eth0", "udhcpc"),
                ("zcip_if", "zcip_eth0", "zcip"),
                ("ifplugd_if", "ifplugd_eth0", "ifplugd"),
                ("dhcp_if_pinger", "dhcp_eth0_pinger", "pinger"),
            ];
            for (model, name, program) in services {
                house.copy(model, name);
                // Debian's programs of these names are elsewhere.
                house.knob(name, "PATH", &format!("{}:/usr/bin", bin.display()));
                fs::remove_file(bin.join(program)).unwrap();
            }
            house.start();
            for (_, name, program) in services {
                stays_down(house, name, &format!("{program}: eth0: no {program} here"), || house.log(name));
            }
        });
    });
}

#[test]
fn gpm_says_what_it_lacks_and_stays_down() {
    isolated(&[&RUNIT[..], &["gpm"]].concat(), |lab| {
        private_dev(lab);
        let home = lab.net("home");
        sh("mkfifo /dev/mouse");
        let _mouse = File::options().read(true).write(true).open("/dev/mouse").unwrap();
        under_both(lab, &home, |house| {
            house.copy("gpm", "gpm");
            // gpm accepts this mouse, and then finds no console: see docs/compat.md, 118.
            house.copy("gpm", "gpm-blind");
            for (name, value) in [("GPM_MOUSE", "/dev/mouse"), ("GPM_TYPE", "bare")] {
                house.knob("gpm-blind", name, value);
            }
            house.knob("gpm-blind", "GPM_LOG", house.path("gpm.log").to_str().unwrap());
            house.start();
            stays_down(house, "gpm", "gpm: no /dev/input/mice", || house.said());
            stays_down(house, "gpm-blind", "gpm: it cannot begin, GPM_LOG=/dev/stderr ./run says why", || house.said());
            let log = fs::read_to_string(house.path("gpm.log")).unwrap();
            assert!(log.contains("adding mouse device: /dev/mouse") && log.contains("Opening console failed"), "{log}");
        });
    });
}

#[test]
fn inetd_serves_what_its_configuration_says_and_its_log_can_be_paged_and_watched() {
    isolated(&[&RUNIT[..], &["inetd", "busybox"]].concat(), |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            house.copy("inetd", "inetd");
            let conf = house.service("inetd/inetd.conf");
            // The shipped configuration opens no port.
            assert!(fs::read_to_string(&conf).unwrap().lines().all(|line| line.is_empty() || line.starts_with('#')));
            let add = |line: &str| writeln!(File::options().append(true).open(&conf).unwrap(), "{line}").unwrap();
            add("127.0.0.1:7001 stream tcp nowait root /bin/echo echo one");
            house.start();
            let says = |port: &str| client(&home, &["busybox", "nc", "-w1", "127.0.0.1", port]);
            killed_stopped_and_started(house, "inetd", || says("7001").is_some_and(|text| text == "one\n"));

            add("127.0.0.1:7002 stream tcp nowait root /bin/echo echo two");
            assert_eq!(says("7002"), None);
            house.sv(&["hup", "inetd"]);
            wait_until("the second", SOON, || says("7002").is_some_and(|text| text == "two\n"));

            wait_until("the log", SOON, || house.log("inetd").contains("someone wants 7002"));
            let rotated = house.path("log/inetd/@400000000000000000000000.s");
            fs::write(rotated, "an older line\n").unwrap();
            let mut page = house.command(&[house.service("inetd/p_log").to_str().unwrap()]);
            let page = String::from_utf8(page.env("PAGER", "cat").output().unwrap().stdout).unwrap();
            assert!(page.starts_with("an older line\n") && page.contains("ADD: ") && page.contains("7002"), "{page}");
            let watch = house.spawn(&[house.service("inetd/w_log").to_str().unwrap()]);
            watch.wait_log("someone wants 7002", SOON);
            let before = watch.log();
            assert_eq!(says("7001").as_deref(), Some("one\n"));
            wait_until("a new line", SOON, || watch.log().len() > before.len());
        });
    });
}

#[test]
fn httpd_serves_its_root() {
    isolated(&[&RUNIT[..], &["busybox", "curl"]].concat(), |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            house.copy("httpd", "httpd");
            house.knob("httpd", "HTTPD_ROOT", site(house).to_str().unwrap());
            house.knob("httpd", "HTTPD_LISTEN", "127.0.0.1:80");
            // chpst -e: an empty file unsets the variable, an empty line makes its value empty.
            house.knob("httpd", "HTTPD_USER", if alone() { "\n" } else { "nobody" });
            house.start();
            let gets =
                |path: &str| client(&home, &["curl", "-sf", "--path-as-is", &format!("http://127.0.0.1/{path}")]);
            killed_stopped_and_started(house, "httpd", || gets("pub/file").is_some_and(|t| t == "hello from here\n"));
            assert_eq!(gets("../log/httpd/current"), None);
            assert_eq!(
                client(&home, &["curl", "-sfT", upload(house).to_str().unwrap(), "http://127.0.0.1/pub/"]),
                None
            );
            assert_eq!(fs::read_dir(house.path("site/pub")).unwrap().count(), 1);
            wait_until("the log", SOON, || house.log("httpd").contains("url:/pub/file"));
            assert_eq!(user_of(house.wait_pid("httpd")), if alone() { 0 } else { 65534 });
        });
    });
}

#[test]
fn ftpd_gives_its_files_and_takes_none() {
    isolated(&[&RUNIT[..], &["vsftpd", "busybox", "curl"]].concat(), |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            house.copy("ftpd", "ftpd");
            house.knob("ftpd", "FTPD_ROOT", site(house).to_str().unwrap());
            house.knob("ftpd", "FTPD_ADDRESS", "127.0.0.1");
            house.knob("ftpd", "FTPD_USER", somebody("daemon"));
            // vsftpd as root changes to other users.
            house.knob("ftpd", "FTPD_ARGS", if alone() { "-orun_as_launching_user=YES" } else { "" });
            house.start();
            let got = house.path("got");
            let gets = || {
                let _ = fs::remove_file(&got);
                let argv = ["busybox", "ftpget", "127.0.0.1", got.to_str().unwrap(), "pub/file"];
                client(&home, &argv).is_some() && fs::read_to_string(&got).unwrap() == "hello from here\n"
            };
            killed_stopped_and_started(house, "ftpd", gets);
            let up = home.try_run(&["curl", "-sS", "-T", upload(house).to_str().unwrap(), "ftp://127.0.0.1/pub/"]);
            assert!(String::from_utf8_lossy(&up.stderr).contains("Failed FTP upload: 550"), "{up:?}");
            assert_eq!(client(&home, &["curl", "-sSu", "root:x", "ftp://127.0.0.1/pub/"]), None, "only anonymous ones");
            assert_eq!(fs::read_dir(house.path("site/pub")).unwrap().count(), 1);
            wait_until("the log", SOON, || house.log("ftpd").contains("OK DOWNLOAD: Client \"127.0.0.1\""));
        });
    });
}

#[test]
fn tftpd_gives_its_files_and_takes_none() {
    isolated(&[&RUNIT[..], &["dnsmasq", "busybox"]].concat(), |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            house.copy("tftpd", "tftpd");
            house.knob("tftpd", "TFTPD_ROOT", site(house).to_str().unwrap());
            house.knob("tftpd", "TFTPD_ADDRESS", "127.0.0.1");
            house.knob("tftpd", "TFTPD_USER", somebody("nobody"));
            // With this option dnsmasq does not change its user, which is impossible there.
            house.knob("tftpd", "TFTPD_ARGS", if alone() { "--no-daemon" } else { "" });
            house.start();
            let got = house.path("got");
            let tftp = |more: &[&str]| home.try_run(&[&["busybox", "tftp"], more, &["127.0.0.1"]].concat());
            // The test looks for the port before it runs the client: the client takes long to see
            // that no server is there.
            let open = || !home.run(&["ss", "-Hlun", "sport = 69"]).is_empty();
            let gets = |file: &str| {
                let _ = fs::remove_file(&got);
                open() && tftp(&["-g", "-r", file, "-l", got.to_str().unwrap()]).status.success()
            };
            let right = || gets("pub/file") && fs::read_to_string(&got).unwrap() == "hello from here\n";
            killed_stopped_and_started(house, "tftpd", right);
            assert!(!gets("../log/tftpd/current"));
            let put = tftp(&["-p", "-l", upload(house).to_str().unwrap(), "-r", "pub/file"]);
            assert!(String::from_utf8_lossy(&put.stderr).contains("server error: "), "{put:?}");
            assert!(right(), "the file is as it was");
            wait_until("the log", SOON, || house.log("tftpd").contains("pub/file to 127.0.0.1"));
            assert_eq!(user_of(house.wait_pid("tftpd")), if alone() { 0 } else { 65534 });
        });
    });
}

/// A machine of the LAN gets an address and asks for a name. fw learns only later which server
/// knows the name.
#[test]
fn dnsmasq_gives_the_lan_addresses_and_the_names_of_the_uplinks_servers() {
    isolated(&[&RUNIT[..], &["dnsmasq", "busybox"]].concat(), |lab| {
        let (home, host) = (lab.net("home"), lab.net("host"));
        let _cable = lab.cable((&home, "lan0"), (&host, "eth0"));
        home.address("lan0", "192.168.7.1/24");
        home.ip(&["link", "set", "lo", "up"]);
        // The uplink's name server: it knows one name.
        let upstream = ["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts"];
        let upstream = [&upstream[..], &["--port=5353", "--listen-address=127.0.0.2", "--bind-interfaces"]].concat();
        let _upstream = home.spawn(&[&upstream[..], &["--address=/name.test/192.0.2.77"]].concat());
        lab.cover("/var/lib/misc");
        let handler = lab.dir().join("handler");
        script(&handler, "[ \"$1\" != bound ] || echo \"$ip $router $dns\" >/run/lease\n");
        under_both(lab, &home, |house| {
            let etc = house.path("etc");
            fs::create_dir(&etc).unwrap();
            house.copy("dnsmasq", "dnsmasq");
            house.knob("dnsmasq", "DNSMASQ_IF", "lan0");
            house.knob("dnsmasq", "DNSMASQ_RANGE", "192.168.7.20,192.168.7.20,1h");
            house.knob("dnsmasq", "DNSMASQ_USER", somebody("nobody"));
            house.knob("dnsmasq", "DNSMASQ_ARGS", if alone() { "--no-daemon --no-ping" } else { "--no-ping" });
            house.knob("dnsmasq", "FW_ETC", etc.to_str().unwrap());
            house.start();
            let leases = || {
                let _ = fs::remove_file("/run/lease");
                let argv =
                    ["busybox", "udhcpc", "-q", "-n", "-t3", "-T1", "-i", "eth0", "-s", handler.to_str().unwrap()];
                host.try_run(&argv).status.success()
                    && fs::read_to_string("/run/lease").unwrap() == "192.168.7.20 192.168.7.1 192.168.7.1\n"
            };
            killed_stopped_and_started(house, "dnsmasq", leases);
            assert!(fs::read_to_string("/var/lib/misc/dnsmasq.leases").unwrap().contains("192.168.7.20"));

            host.ip(&["address", "replace", "192.168.7.20/24", "dev", "eth0"]);
            let knows = || {
                let said = host.try_run(&["busybox", "nslookup", "name.test", "192.168.7.1"]).stdout;
                String::from_utf8_lossy(&said).contains("192.0.2.77")
            };
            assert!(!knows(), "before there is a server to be asked");
            // fw writes the file in the same way.
            fs::write(etc.join("dnsmasq_servers.conf"), "server=127.0.0.2#5353\n").unwrap();
            house.sv(&["hup", "dnsmasq"]);
            wait_until("the name", SOON, knows);
            wait_until("the log", SOON, || house.log("dnsmasq").contains("DHCPACK(lan0) 192.168.7.20"));
            host.ip(&["address", "flush", "dev", "eth0"]);
        });
    });
}

/// The user id of a process.
fn user_of(pid: i32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A prefix for programs that could set the machine's clock: it takes that right from them.
const NO_CLOCK: [&str; 2] = ["setpriv", "--bounding-set=-sys_time"];

/// chronyd as the other server or client. It never sets the clock.
fn chronyd<'a>(pid: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["chronyd", "-x", "-u", "root", pid, "cmdport 0", "bindcmdaddress /"];
    [&NO_CLOCK[..], &base, more].concat()
}

#[test]
fn ntpd_follows_its_server_and_serves_whom_it_may() {
    isolated(&[&RUNIT[..], &["chronyd"]].concat(), |lab| {
        let (home, isp, lan) = (lab.net("home"), lab.net("isp"), lab.net("lan"));
        lab.cable((&home, "eth0"), (&isp, "customer"));
        lab.cable((&home, "eth2"), (&lan, "lan0"));
        home.address("eth0", "192.0.2.100/24");
        isp.address("customer", "192.0.2.1/24");
        home.address("eth2", "10.0.0.1/24");
        lan.address("lan0", "10.0.0.2/24");
        let server = isp.spawn(&chronyd("pidfile /run/lab/server.pid", &["-d", "local stratum 3", "allow"]));
        server.wait_log("Disabled control of system clock", SOON);
        under_both(lab, &home, |house| {
            house.copy("ntpd", "ntpd");
            for (name, value) in [("NTPD_SERVERS", "192.0.2.1"), ("NTPD_ALLOW", "10.0.0.0/24"), ("NTPD_ARGS", "-x")] {
                house.knob("ntpd", name, value);
            }
            house.knob("ntpd", "NTPD_USER", somebody("nobody"));
            house.copy("ntpd", "ntpd-idle");
            house.knob("ntpd-idle", "NTPD_LEASES", "no");
            house.start_under(&NO_CLOCK);
            killed_stopped_and_started(house, "ntpd", || !home.run(&["ss", "-Hlun", "sport = 123"]).is_empty());
            wait_until("a server", SOON, || house.log("ntpd").contains("Selected source 192.0.2.1"));
            assert!(house.log("ntpd").contains("Disabled control of system clock"));
            // An SNTP client in the LAN, and one in front of the house. They ask for the time and
            // set nothing.
            let query = |from: &Net, server: &str| {
                let server = format!("server {server} iburst maxsamples 1");
                let argv = chronyd("pidfile /run/lab/client.pid", &["-Q", "-t", "3", &server]);
                from.try_run(&argv).status.success()
            };
            wait_until("an answer", SOON, || query(&lan, "10.0.0.1"));
            assert!(!query(&isp, "192.0.2.100"), "it is not allowed");
            assert_eq!(user_of(house.wait_pid("ntpd")), if alone() { 0 } else { 65534 });
            stays_down(house, "ntpd-idle", "ntpd: NTPD_SERVERS is empty", || house.log("ntpd-idle"));
        });
    });
}

/// Hides every program with one of these names behind a file that cannot be executed.
fn hide(names: &[&str]) {
    for name in names {
        while let Some(path) = find_program(name) {
            let path = fs::canonicalize(path).unwrap();
            sh(&format!("mount --bind /dev/null '{}'", path.display()));
        }
    }
}

#[test]
fn dnsmasq_without_a_place_for_its_servers_says_so_once_and_stays_down() {
    isolated(&RUNIT, |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            script(&lab.dir().join("bin/dnsmasq"), "echo started; exec sleep 1000");
            house.copy("dnsmasq", "dnsmasq");
            house.knob("dnsmasq", "DNSMASQ_IF", "br0");
            house.knob("dnsmasq", "FW_ETC", "/nonexistent");
            house.start();
            let text = "dnsmasq: no /nonexistent/dnsmasq_servers.conf, and it cannot be made";
            stays_down(house, "dnsmasq", text, || house.log("dnsmasq"));
        });
    });
}

/// Renames a lease's record into its place, as udhcpc does.
fn lease(house: &House, interface: &str, ntp: &str) {
    let path = house.path("dynamic").join(format!("dhcp_{interface}.ipconf"));
    let text = format!("let cfg=cfg+1\nif[$cfg]='{interface}'\nip[$cfg]='192.0.2.100'\nntp[$cfg]='{ntp}'\n");
    fs::write(path.with_extension("new"), text).unwrap();
    fs::rename(path.with_extension("new"), path).unwrap();
}

#[test]
fn ntpd_asks_the_servers_that_leases_name() {
    isolated(&RUNIT, |lab| {
        let home = lab.net("home");
        under_both(lab, &home, |house| {
            // This stands for chronyd, and for a busybox that has an ntpd.
            script(&lab.dir().join("bin/busybox"), "exit 1");
            script(&lab.dir().join("bin/chronyd"), "echo asks \"$@\"; exec sleep 1000");
            house.copy("ntpd", "ntpd");
            // A stand-in for fw, with the ./finish that is shipped.
            house.copy("fw", "fw");
            fs::remove_file(house.service("fw/run")).unwrap();
            house.add_fw_to("fw");
            // fw and its ./finish have run once more.
            let fw = |house: &House| {
                let runs = house.fw_runs();
                house.sv(&["up", "fw"]);
                wait_until("fw", SOON, || house.fw_runs() > runs);
                house.wait_down("fw");
            };
            house.start();
            let asks = |server: &str| house.log("ntpd").contains(&format!("server {server} iburst"));
            wait_until("that it waits", SOON, || house.log("ntpd").contains("no lease names a server so far"));
            let waiting = house.wait_pid("ntpd");
            house.wait_first_fw();
            // A word that is not a name is left out, because the words become options of a daemon.
            lease(house, "eth0", "192.0.2.1 -evil a;b");
            fw(house);
            wait_until("the server of the lease", SOON, || asks("192.0.2.1"));
            let pid = house.wait_pid("ntpd");
            assert!(pid != waiting && !house.log("ntpd").contains("evil") && !house.log("ntpd").contains("a;b"));
            // The lease goes and comes again, and another lease names the same server: ntpd is not
            // restarted.
            fs::remove_file(house.path("dynamic/dhcp_eth0.ipconf")).unwrap();
            fw(house);
            lease(house, "eth0", "192.0.2.1");
            lease(house, "eth1", "192.0.2.1");
            fw(house);
            assert_eq!(house.pid("ntpd"), Some(pid));
            // A new server restarts ntpd. A server that the administrator names comes before it.
            house.knob("ntpd", "NTPD_SERVERS", "ntp.example 192.0.2.1");
            lease(house, "eth1", "192.0.2.2");
            fw(house);
            wait_until("it to begin anew", SOON, || asks("192.0.2.2"));
            let log = house.log("ntpd");
            let servers =
                ["ntp.example", "192.0.2.1", "192.0.2.2"].map(|name| format!("server {name} iburst ")).concat();
            assert!(log.contains(&format!("asks -d -u nobody {servers}makestep")), "{log}");
            // An ntpd that the administrator has taken down stays down.
            house.sv(&["-w10", "down", "ntpd"]);
            lease(house, "eth1", "192.0.2.3");
            fw(house);
            holds_for("it stays down", QUIET, || house.stat("ntpd").starts_with("down"));
            // ntpd ignores the servers of leases.
            house.knob("ntpd", "NTPD_LEASES", "no");
            house.sv(&["-w10", "up", "ntpd"]);
            let last = || house.log("ntpd").lines().last().unwrap_or_default().to_owned();
            wait_until("those alone", SOON, || last().contains("ntp.example iburst server 192.0.2.1 iburst makestep"));
        });
    });
}

#[test]
fn without_its_program_or_its_files_a_service_says_so_once_and_stays_down() {
    isolated(&RUNIT, |lab| {
        private_dev(lab);
        let home = lab.net("home");
        let _terminal = Terminal::new("ttyT1");
        fs::write("/dev/mouse", "").unwrap();
        hide(&["busybox", "agetty", "gpm", "vmstat", "inetd", "vsftpd", "dnsmasq", "chronyd", "wpa_supplicant"]);
        hide(&["pppd", "wg", "tc"]);
        let expected = [
            ("getty_ttyT1", "getty: no busybox here"),
            ("gpm", "gpm: no gpm here"),
            ("nmeter", "nmeter: neither busybox's nmeter nor vmstat here"),
            ("inetd", "inetd: neither busybox's inetd nor inetd here"),
            ("httpd", "httpd: no busybox with httpd here"),
            ("ftpd", "ftpd: neither busybox's tcpsvd and ftpd nor vsftpd here"),
            ("tftpd", "tftpd: neither busybox's udpsvd and tftpd nor dnsmasq here"),
            ("ntpd", "ntpd: neither busybox's ntpd nor chronyd here"),
            ("dnsmasq", "dnsmasq: no dnsmasq here"),
            ("supplicant_eth0", "supplicant: eth0: no wpa_supplicant here"),
            ("ppp_dsl0", "ppp: dsl0: no pppd here"),
            ("wg_wg0", "wg: wg0: no wg here"),
            ("sqm_eth0", "sqm: eth0: no tc of iproute2 here"),
            ("httpd-empty", "httpd: no directory /nonexistent"),
            ("ftpd-empty", "ftpd: no directory /nonexistent"),
            ("ftpd-nobody", "ftpd: no user nobody-at-all"),
            ("tftpd-empty", "tftpd: no directory /nonexistent"),
        ];
        under_both(lab, &home, |house| {
            for (name, _) in expected {
                let template = name.split('-').next().unwrap();
                let template = match template.split('_').next() {
                    Some("getty") => "getty_tty",
                    Some("supplicant") => "supplicant_if",
                    Some("ppp") => "ppp_if",
                    Some("wg") => "wg_if",
                    Some("sqm") => "sqm_if",
                    _ => template,
                };
                house.copy(template, name);
                let root = if name.ends_with("-empty") { "/nonexistent" } else { "/" };
                for knob in ["HTTPD_ROOT", "FTPD_ROOT", "TFTPD_ROOT"] {
                    house.knob(name, knob, root);
                }
                house.knob(name, "FTPD_USER", if name == "ftpd-nobody" { "nobody-at-all" } else { "root" });
                house.knob(name, "NTPD_SERVERS", "192.0.2.1");
                house.knob(name, "NMETER_TTY", "/dev/ttyT1");
                house.knob(name, "GPM_MOUSE", "/dev/mouse");
            }
            house.start();
            let all = || {
                let logs = expected.iter().map(|(name, _)| house.log(name));
                logs.chain([house.said()]).collect::<String>()
            };
            for (name, text) in expected {
                let line = format!("{text}: down until \"sv up {name}\"");
                wait_until(&line, SOON, || all().contains(&line) && house.stat(name).starts_with("down"));
            }
            holds_for("nothing is said twice", QUIET, || all().matches("down until").count() == expected.len());
        });
    });
}

/// As the README of the original's examples says: "You can debug an individual service by running
/// its SERVICE_DIR/run script."
#[test]
fn by_hand_a_run_script_may_be_called_from_anywhere_and_starts_nothing_that_it_lacks() {
    isolated(&["dnsmasq", "busybox"], |lab| {
        ours(lab);
        let home = lab.net("home");
        let house = House::new(lab, &home, "services");
        house.copy("dhcp_if", "dhcp_eth7");
        let client = house.spawn(&[house.service("dhcp_eth7/run").to_str().unwrap()]);
        client.wait_log("no interface eth7", SOON);

        house.copy("dnsmasq", "dnsmasq");
        let mut server = house.spawn(&[house.service("dnsmasq/run").to_str().unwrap()]);
        let ended = wait_for("its end", SOON, || server.wait(Duration::ZERO));
        assert_eq!(ended.code(), Some(1), "{}", server.log());
        let said = "dnsmasq: DNSMASQ_IF is empty: down until \"sv up dnsmasq\"\n";
        assert!(server.log().starts_with(said), "{}", server.log());
    });
}

#[test]
fn a_busybox_that_has_them_is_preferred() {
    isolated(&RUNIT, |lab| {
        private_dev(lab);
        let home = lab.net("home");
        let _terminal = Terminal::new("ttyT9");
        let applets = "inetd nmeter httpd tcpsvd udpsvd ftpd tftpd ntpd";
        under_both(lab, &home, |house| {
            let list = format!("[ \"$1\" = --list ] && exec printf '%s\\n' {applets}");
            let calls = house.path("calls");
            let body = format!("{list}\necho \"$*\" >>{}; exec sleep 1000", calls.display());
            script(&lab.dir().join("bin/busybox"), &body);
            for name in ["nmeter", "inetd", "httpd", "ftpd", "tftpd", "ntpd"] {
                house.copy(name, name);
            }
            for (name, knob, value) in [
                ("nmeter", "NMETER_TTY", "/dev/ttyT9"),
                ("httpd", "HTTPD_ROOT", "/"),
                ("ftpd", "FTPD_ROOT", "/"),
                ("ftpd", "FTPD_USER", "root"),
                ("tftpd", "TFTPD_ROOT", "/"),
                ("ntpd", "NTPD_SERVERS", "192.0.2.1 192.0.2.2"),
                ("ntpd", "NTPD_ALLOW", "10.0.0.0/24"),
                ("ntpd", "NTPD_ARGS", "-w"),
            ] {
                house.knob(name, knob, value);
            }
            script(&house.service("ntpd/ntp.script"), "");
            house.start();
            let conf = house.service("inetd/inetd.conf");
            for call in [
                "nmeter %t %c ".to_owned(),
                format!("inetd -fe {}\n", conf.display()),
                "httpd -f -vv -p 80 -h / -u nobody\n".to_owned(),
                "tcpsvd -vE 0.0.0.0 21 busybox ftpd -vv -a root /\n".to_owned(),
                "udpsvd -vE 0.0.0.0 69 busybox tftpd -r -u nobody /\n".to_owned(),
                "ntpd -dnN -l -w -S ./ntp.script -p 192.0.2.1 -p 192.0.2.2\n".to_owned(),
            ] {
                wait_until(&call, SOON, || fs::read_to_string(&calls).is_ok_and(|text| text.contains(&call)));
            }
        });
    });
}
