//! The command line, option by option.

use applet::getopt::Arg;

use super::*;

fn parsed(args: &[&str]) -> Result<Options, CliError> {
    match parse(args.iter().map(OsString::from))? {
        Command::Run(options) => Ok(*options),
        Command::Show(show) => panic!("{show:?}"),
    }
}

#[test]
fn defaults_are_udhcpcs() {
    let o = parsed(&[]).unwrap();
    assert_eq!(o.interface, "eth0");
    assert_eq!(o.handling, Handling::Script { program: DEFAULT_SCRIPT.into(), pass: vec![] });
    assert_eq!(o.template.parameters, [1, 3, 6, 12, 15, 28, 42]);
    assert_eq!(o.template.extra, [(60, DEFAULT_VENDOR.as_bytes().to_vec())]);
    assert!(o.template.default_client_id && !o.template.broadcast);
    assert_eq!(o.config.schedule, Schedule::Adaptive);
    assert!(o.config.background_when_bound);
}

#[test]
fn the_seeds_command_lines() {
    let o = parsed(&["-vv", "--foreground", "--interface=eth0", "--pidfile=/p", "--script=/h", "-x", "hostname bbox"]);
    let o = o.unwrap();
    assert_eq!((o.verbosity, o.config.background_when_bound), (2, false));
    assert_eq!(o.template.extra, [(12, b"bbox".to_vec()), (60, DEFAULT_VENDOR.as_bytes().to_vec())]);
    let o = parsed(&["-vv", "-C", "-o", "-V", "", "--foreground", "--interface=wlan0"]).unwrap();
    assert!(o.template.parameters.is_empty() && o.template.extra.is_empty() && !o.template.default_client_id);
}

#[test]
fn timing_given_is_timing_kept() {
    let fixed =
        |retries, t, a| Schedule::Fixed { retries, timeout: Duration::from_secs(t), tryagain: Duration::from_secs(a) };
    for (args, want) in [
        (&["-t", "0"][..], fixed(0, 3, 20)),
        (&["-T", "1", "-A5"], fixed(3, 1, 5)),
        (&["-t5", "-T2", "-A10"], fixed(5, 2, 10)),
    ] {
        assert_eq!(parsed(args).unwrap().config.schedule, want, "{args:?}");
    }
}

#[test]
fn ways_to_look_for_conflicts() {
    let acd = |args: &[&str]| parsed(args).map(|o| o.config.acd);
    let one = |ms| Ok(Some(Timing::one_probe(Duration::from_millis(ms))));
    assert_eq!(acd(&[]), Ok(None));
    assert_eq!(acd(&["-a"]), one(2000));
    // The number must be glued to it.
    assert_eq!(acd(&["-a500"]), one(500));
    assert_eq!(acd(&["--arping=10"]), one(10));
    assert!(acd(&["-a", "500"]).is_err());
    assert!(acd(&["-ax"]).is_err());
    assert_eq!(acd(&["--acd", "fast"]), Ok(Some(Timing::FAST)));
    assert_eq!(acd(&["--acd=rfc"]), Ok(Some(Timing::RFC5227)));
    assert!(acd(&["--acd", "yes"]).is_err());
}

#[test]
fn extra_options() {
    let o = parsed(&[
        "-x",
        "0x3d:0102",
        "-x",
        "200:\"abc\"",
        "-x",
        "lease:7200",
        "-x",
        "router:1.2.3.4",
        "-x",
        "router:5.6.7.8",
        "-x",
        "hostname:one",
        "-x",
        "hostname:two",
        "-F",
        "fq.do",
        "-V",
        "x",
    ]);
    let mut extra = o.unwrap().template.extra;
    extra.sort();
    let want: &[(u8, &[u8])] = &[
        (3, &[1, 2, 3, 4, 5, 6, 7, 8]),
        (12, b"one"),
        (51, &[0, 0, 0x1c, 0x20]),
        (60, b"x"),
        (61, &[1, 2]),
        (81, b"\x01\0\0fq.do"),
        (200, b"abc"),
    ];
    assert_eq!(extra, want.iter().map(|(c, d)| (*c, d.to_vec())).collect::<Vec<_>>());
}

#[test]
fn the_request_list_is_sorted_and_without_doubles() {
    assert_eq!(parsed(&["-O", "search", "-O", "121", "-O", "dns", "-o"]).unwrap().template.parameters, [6, 119, 121]);
    let native = parsed(&["--ipconf", "/d"]).unwrap().template.parameters;
    // RFC 3442: routes before the router.
    assert_eq!(native, [1, 121, 249, 3, 6, 12, 15, 26, 28, 33, 42, 114, 119]);
}

#[test]
fn options_that_a_script_gets_in_hexadecimal_have_names_too() {
    let names = ["vendorinfo", "userclass", "ipv6only", "captiveportal", "vivendorclass", "vivendorinfo", "vendor"];
    let args: Vec<&str> = names.iter().flat_map(|name| ["-O", name]).chain(["-o"]).collect();
    assert_eq!(parsed(&args).unwrap().template.parameters, [43, 60, 77, 108, 114, 124, 125]);
    let o = parsed(&[
        "-x",
        "userclass:04697065",
        "-x",
        "vivendorclass:00:00:0d:e9 03:61:62:63",
        "-x",
        "vivendorinfo:'raw'",
        "-x",
        "vendor:MSFT 5.0",
    ]);
    let mut extra = o.unwrap().template.extra;
    extra.sort();
    let want: &[(u8, &[u8])] = &[(60, b"MSFT 5.0"), (77, b"\x04ipe"), (124, b"\0\0\x0d\xe9\x03abc"), (125, b"raw")];
    assert_eq!(extra, want.iter().map(|(c, d)| (*c, d.to_vec())).collect::<Vec<_>>());
}

#[test]
fn who_we_say_we_are() {
    let duid = |args: &[&str]| parsed(args).map(|o| (o.duid, o.template.default_client_id));
    assert_eq!(duid(&["--duid", "ll"]), Ok((Some(Duid::LinkLayer), false)));
    assert_eq!(duid(&["--duid=uuid"]), Ok((Some(Duid::Uuid), false)));
    assert_eq!(duid(&[]), Ok((None, true)));
    for args in [&["--duid", "mac"][..], &["--duid", "ll", "-C"], &["--duid", "ll", "-x", "0x3d:0102"]] {
        assert!(duid(args).is_err(), "{args:?}");
    }
    let o = parsed(&["--anonymous"]).unwrap();
    assert!(o.template.anonymous && o.template.extra.is_empty() && o.template.default_client_id);
    assert_eq!(o.template.parameters, [1, 3, 6, 121]);
    assert_eq!(parsed(&["--anonymous", "-V", "", "-O", "mtu"]).unwrap().template.parameters, [1, 3, 6, 26, 121]);
    for other in [
        &["-x", "hostname:h"][..],
        &["-F", "h"],
        &["-V", "v"],
        &["-r", "1.2.3.4"],
        &["--duid", "ll"],
        &["--rapid-commit"],
        &["--state", "/s"],
    ] {
        assert!(parsed(&[&["--anonymous"], other].concat()).is_err(), "{other:?}");
    }
}

#[test]
fn routes_and_ipv6_are_policies() {
    assert_eq!(parsed(&[]).unwrap().routes, Policy::Safe);
    assert_eq!(parsed(&["--classless-routes", "default-only"]).unwrap().routes, Policy::DefaultOnly);
    assert!(parsed(&["--classless-routes", "some"]).is_err());
    let o = parsed(&["--ipv6-only", "-o"]).unwrap();
    assert!(o.config.ipv6_only);
    assert_eq!(o.template.parameters, [108], "RFC 8925 section 3.2: who wants it asks for it");
}

#[test]
fn servers_and_options_that_are_not_wanted() {
    let gate = |args: &[&str]| parsed(args).map(|o| o.gate);
    let gated =
        gate(&["--reject", "192.168.100.1", "--reject=192.168.101.7/24", "--ignore", "mtu", "--ignore=0x0f"]).unwrap();
    let networks: Vec<String> = gated.reject.iter().map(|n| format!("{}/{}", n.ip, n.len)).collect();
    assert_eq!((networks.join(" ").as_str(), gated.ignore), ("192.168.100.1/32 192.168.101.0/24", vec![26, 15]));
    let o = parsed(&["--ipconf", "/d", "--ignore", "26", "-O", "mtu"]).unwrap();
    assert!(!o.template.parameters.contains(&26), "not asked for either");
    for (option, value) in [
        ("--reject", ""),
        ("--reject", "192.168.100"),
        ("--reject", "192.168.100.1/33"),
        ("--reject", "fe80::1"),
        ("--reject", "modem"),
        ("--ignore", "bogus"),
        ("--ignore", "0"),
        ("--ignore", "256"),
        ("--ignore", "lease"),
        ("--ignore", "53"),
        ("--ignore", "0x36"),
    ] {
        match gate(&[option, value]) {
            Err(CliError::Fatal(text)) => assert!(text.contains(&format!("'{value}'")), "{text}"),
            other => panic!("{option} {value}: {other:?}"),
        }
    }
}

#[test]
fn routes_have_a_metric_and_messages_a_priority() {
    let o = parsed(&["--no-default-route", "--metric", "4294967295", "--priority=7"]).unwrap();
    assert_eq!((o.default_route, o.metric, o.priority), (false, Some(u32::MAX), Some(7)));
    let o = parsed(&[]).unwrap();
    assert_eq!((o.default_route, o.metric, o.priority), (true, None, None));
    for (option, value) in [
        ("--metric", "4294967296"),
        ("--metric", "-1"),
        ("--metric", ""),
        ("--metric", "low"),
        ("--priority", "8"),
        ("--priority", "+1"),
        ("--priority", ""),
        ("--priority", "0x1"),
    ] {
        match parsed(&[option, value]) {
            Err(CliError::Fatal(text)) => assert!(text.contains(&format!("'{value}'")), "{text}"),
            other => panic!("{option} {value}: {other:?}"),
        }
    }
}

#[test]
fn show_is_another_command() {
    let show = |args: &[&str]| match parse(args.iter().map(OsString::from)) {
        Ok(Command::Show(show)) => Some(show),
        Ok(Command::Run(_)) | Err(_) => None,
    };
    assert_eq!(show(&["--show"]), Some(Show { interface: None, dir: None, json: false }));
    assert_eq!(
        show(&["--json", "--show", "-i", "eth1", "--ipconf", "/d"]),
        Some(Show { interface: Some("eth1".into()), dir: Some("/d".into()), json: true })
    );
    assert_eq!(show(&["--json"]), None);
}

#[test]
fn wrong_use_is_named() {
    let fatal = |args: &[&str]| match parsed(args) {
        Err(CliError::Fatal(text) | CliError::Usage(text)) => text,
        Err(CliError::Help) | Ok(_) => panic!("{args:?} was taken"),
    };
    assert!(fatal(&["-O", "bogus"]).starts_with("unknown option 'bogus', known options: subnet timezone "));
    assert!(fatal(&["-t", "x"]).contains("invalid number 'x'"));
    assert!(fatal(&["-r", "1.2.3.x"]).contains("-r"));
    assert!(fatal(&["-x", "lease:no"]).contains("-x"));
    assert!(fatal(&["-x", "200:xyz"]).contains("-x"));
    assert!(fatal(&["-Z"]).contains("invalid option"));
    assert!(fatal(&["-s", "/x", "--ipconf", "/d"]).contains("exclude"));
    assert!(fatal(&["--state", "/d", "--ipconf", "/d"]).contains("of their own"));
    assert!(fatal(&["eth0"]).contains("eth0"));
}

/// Every row of udhcpc's table that has both forms: what they mean is the same, and not nothing.
#[test]
fn short_and_long_forms_glued_and_separate_mean_the_same() {
    let shown = |args: &[&str]| format!("{:?}", parsed(args).unwrap_or_else(|e| panic!("{args:?}: {e:?}")));
    let flags = [
        "n now",
        "b background",
        "q quit",
        "f foreground",
        "R release",
        "o no-default-options",
        "C clientid-none",
        "B broadcast",
        "S syslog",
        "a arping",
    ];
    for flag in flags {
        let (short, long) = flag.split_once(' ').unwrap();
        let want = shown(&[&format!("-{short}")]);
        assert_ne!(want, shown(&[]), "-{short} changes something");
        assert_eq!(shown(&[&format!("--{long}")]), want, "{flag}");
        // In a cluster with another.
        assert_eq!(shown(&[&format!("-v{short}")]), shown(&["-v", &format!("-{short}")]), "{flag}");
    }
    let valued = [
        "i interface wlan0",
        "s script /bin/x",
        "p pidfile /run/x",
        "t retries 7",
        "T timeout 8",
        "A tryagain 9",
        "r request 10.0.0.9",
        "O request-option search",
        "F fqdn name",
        "V vendorclass text",
    ];
    for row in valued {
        let words: Vec<&str> = row.split(' ').collect();
        let [short, long, value] = words[..] else { panic!("{row}") };
        let want = shown(&[&format!("-{short}"), value]);
        assert_ne!(want, shown(&[]), "-{short} changes something");
        assert_eq!(shown(&[&format!("-{short}{value}")]), want, "{row}");
        assert_eq!(shown(&[&format!("--{long}"), value]), want, "{row}");
        assert_eq!(shown(&[&format!("--{long}={value}")]), want, "{row}");
    }
    let verbosity = |args: &[&str]| parsed(args).unwrap().verbosity;
    assert_eq!((verbosity(&[]), verbosity(&["-v"]), verbosity(&["-vvv"])), (0, 1, 3));
}

#[test]
fn limits_of_udhcpcs_options() {
    assert!(parsed(&["-T", "-1"]).is_err() && parsed(&["-T", "1.5"]).is_err() && parsed(&["-A", ""]).is_err());
    assert!(parsed(&["-O", "0"]).is_err() && parsed(&["-O", "255"]).is_err() && parsed(&["-O", "0xfe"]).is_ok());
    assert_eq!(parsed(&["-r", "0.0.0.0"]).unwrap().config.requested, None);
    assert_eq!(parsed(&["-O", "1", "-O", "subnet", "-o"]).unwrap().template.parameters, [1]);
    let long = "x".repeat(300);
    let extra = |args: &[&str]| parsed(args).unwrap().template.extra[0].1.len();
    assert_eq!(extra(&["-V", &long]), 254);
    assert_eq!(extra(&["-x", &format!("hostname:{long}")]), 254);
    assert_eq!(extra(&["-x", &format!("0xc8:'{long}'")]), 254);
    assert!(
        parsed(&["-x", "hostname"]).is_err()
            && parsed(&["-x", "200:"]).is_err()
            && parsed(&["-x", "nosuch:1"]).is_err()
    );
    for separator in [":", "=", " ", "\t"] {
        assert_eq!(extra(&["-x", &format!("hostname{separator}bbox"), "-V", ""]), 4, "{separator:?}");
    }
    assert!(parsed(&["-P", "68"]).is_err(), "as without busybox's FEATURE_UDHCP_PORT");
}

#[test]
fn b_beats_n_and_an_alias_names_its_device() {
    let o = parsed(&["-n", "-b", "-i", "eth0:1"]).unwrap();
    assert!(!o.config.exit_on_failure && o.config.background_on_failure);
    assert_eq!((o.interface.as_str(), o.device().as_str()), ("eth0:1", "eth0"));
}

#[test]
fn every_option_is_in_the_usage_and_in_the_man_page_and_no_other() {
    let man = include_str!("../../../../man/udhcpc.8");
    for o in TABLE {
        if !o.key.is_control() {
            assert!(USAGE.contains(&format!("\n  -{}", o.key)), "-{} in USAGE", o.key);
            let item = man
                .lines()
                .any(|l| l.strip_prefix(".It Fl ").is_some_and(|l| l.split(' ').next() == Some(&o.key.to_string())));
            assert!(item, "-{} in man/udhcpc.8", o.key);
        }
        if !o.long().is_empty() {
            let glued = if o.arg == Arg::Optional { "[" } else { " " };
            assert!(USAGE.contains(&format!("--{}{glued}", o.long())), "--{} in USAGE", o.long());
            let item =
                man.lines().any(|l| l.starts_with(".It Fl ") && l.split(' ').any(|w| w == format!("-{}", o.long())));
            assert!(item, "--{} in man/udhcpc.8", o.long());
        }
    }
    let items = man.lines().filter(|l| l.starts_with(".It Fl ")).count();
    assert_eq!(items, TABLE.len(), "options in man/udhcpc.8");
    let lines = USAGE.lines().filter(|l| l.starts_with("  -")).count();
    assert_eq!(lines, TABLE.len(), "options in USAGE");
}
