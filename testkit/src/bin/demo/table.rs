//! The state after the story, read with `ip -j` and `sv status`: our own code does not read our own
//! state here.

use crate::screen::{Tone, line, paint};
use crate::story::Story;

pub(crate) fn print(story: &Story) {
    let home = &story.world.home;
    let routes = home.default_routes();
    line("");
    line(&paint(Tone::Strong, "State of the appliance"));
    line(&paint(Tone::Quiet, &format!("  {:<8}{:<14}{:<36}{}", "uplink", "link", "addresses", "default route")));
    for interface in ["eth0", "eth1"] {
        let links = home.ip_json(&["link", "show", "dev", interface]);
        let has = |flag: &str| links[0]["flags"].as_array().into_iter().flatten().any(|f| f == flag);
        let state = if has("LOWER_UP") { "up" } else { "no carrier" };
        let addresses = home.addresses(interface);
        let best = routes.first().is_some_and(|(dev, _, _)| dev == interface);
        let route = routes.iter().find(|(dev, _, _)| dev == interface).map_or("none".to_owned(), |(_, gw, metric)| {
            format!("via {gw} metric {metric}{}", if best { ", preferred" } else { "" })
        });
        let lease = if addresses.is_empty() { "none".to_owned() } else { addresses.join(" ") };
        line(&format!("  {interface:<8}{state:<14}{lease:<36}{route}"));
    }
    line("");
    let mut names: Vec<String> = (std::fs::read_dir(story.appliance.services()).into_iter().flatten().flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let argv: Vec<&str> = ["sv", "status"].into_iter().chain(names.iter().map(String::as_str)).collect();
    for status in story.appliance.run(&argv).lines() {
        line(&format!("  {status}"));
    }
}
