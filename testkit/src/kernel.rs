//! Namespaces, cables and addresses, made through rtnetlink instead of `ip` processes.
//!
//! The kit uses the kernel's interface to make things; tests still use `ip -j` to check them. Each
//! call has a thread of its own, because setns(2) and unshare(2) move one thread to another
//! network. A failure panics with the thing that could not be made. lab.rs calls it.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};

/// An end of a cable that is about to be made.
pub(crate) struct Plug<'a> {
    /// The name of the namespace.
    pub(crate) net: &'a str,
    /// The name of the interface in it.
    pub(crate) interface: &'a str,
    /// Its Ethernet address.
    pub(crate) mac: [u8; 6],
}

/// The file that ip-netns(8) uses for a namespace.
pub(crate) fn path(net: &str) -> PathBuf {
    Path::new("/run/netns").join(net)
}

/// Makes a network namespace with loopback up. It lives as long as the mount on its file.
#[track_caller]
pub(crate) fn add_net(net: &str) {
    let file = path(net);
    File::create_new(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    in_thread(&format!("namespace {net}"), move || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = Path::new("/proc/thread-self/ns/net");
        mount(Some(own), &file, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        ask(async |kernel| {
            kernel.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await.map_err(wrong)
        })
    });
}

/// Makes a veth pair. Each end is up in its own namespace.
#[track_caller]
pub(crate) fn add_cable(near: &Plug, far: &Plug) {
    let what = format!("cable {}:{} to {}:{}", near.net, near.interface, far.net, far.interface);
    let far_net = open(far.net);
    let peer = end(LinkMessageBuilder::<LinkUnspec>::new(), far).setns_by_fd(far_net.as_raw_fd()).build();
    let pair = end(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth), near);
    let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer))).build();
    let near_up = LinkUnspec::new_with_name(near.interface).up().build();
    inside(near.net, &what, async move |kernel| {
        kernel.link().add(pair).execute().await.map_err(wrong)?;
        // This needs a request of its own: an end cannot be up before it knows the other (ENOTCONN,
        // drivers/net/veth.c).
        kernel.link().set(near_up).execute().await.map_err(wrong)
    });
    set_up(far.net, far.interface, true);
}

fn end<T>(message: LinkMessageBuilder<T>, plug: &Plug) -> LinkMessageBuilder<T> {
    message.name(plug.interface).address(plug.mac.to_vec())
}

/// Makes a bridge and sets it up.
#[track_caller]
pub(crate) fn add_bridge(net: &str, bridge: &str) {
    let link = LinkBridge::new(bridge).up().build();
    let what = format!("bridge {net}:{bridge}");
    inside(net, &what, async move |kernel| kernel.link().add(link).execute().await.map_err(wrong));
}

/// Makes an interface a port of a bridge.
#[track_caller]
pub(crate) fn add_port(net: &str, bridge: &str, port: &str) {
    inside(net, &format!("{net}: {port} in {bridge}"), async move |kernel| {
        let link = LinkUnspec::new_with_name(port).controller(if_nametoindex(bridge)?).build();
        kernel.link().set(link).execute().await.map_err(wrong)
    });
}

/// Sets an interface up or down.
#[track_caller]
pub(crate) fn set_up(net: &str, interface: &str, up: bool) {
    let link = LinkUnspec::new_with_name(interface);
    let link = if up { link.up() } else { link.down() }.build();
    inside(net, &format!("{net}: {interface} up: {up}"), async move |kernel| {
        kernel.link().set(link).execute().await.map_err(wrong)
    });
}

/// Adds an address, as ADDR/LEN, in the way of a plain `ip address add`: without a broadcast
/// address.
#[track_caller]
pub(crate) fn add_address(net: &str, interface: &str, address: &str) {
    let what = format!("{net}: address {address} on {interface}");
    let (ip, len) = address.split_once('/').unwrap_or_else(|| panic!("{what}: no prefix length"));
    let ip: IpAddr = ip.parse().unwrap_or_else(|e| panic!("{what}: {e}"));
    let len: u8 = len.parse().unwrap_or_else(|e| panic!("{what}: {e}"));
    inside(net, &what, async move |kernel| {
        let mut request = kernel.address().add(if_nametoindex(interface)?, ip, len);
        request.message_mut().attributes.retain(|a| !matches!(a, AddressAttribute::Broadcast(_)));
        request.execute().await.map_err(wrong)
    });
}

/// Runs a request to the kernel in a namespace.
#[track_caller]
fn inside(net: &str, what: &str, job: impl AsyncFnOnce(Handle) -> io::Result<()> + Send) {
    let file = open(net);
    in_thread(what, move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        ask(job)
    });
}

/// Moves the calling thread into a namespace.
pub(crate) fn enter(net: &str) {
    setns(open(net), CloneFlags::CLONE_NEWNET).unwrap_or_else(|e| panic!("{net}: {e}"));
}

#[track_caller]
fn open(net: &str) -> File {
    File::open(path(net)).unwrap_or_else(|e| panic!("{}: {e}", path(net).display()))
}

/// Runs a request to the kernel in this thread's namespace.
fn ask(job: impl AsyncFnOnce(Handle) -> io::Result<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let (connection, kernel, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        job(kernel).await
    })
}

fn wrong(error: rtnetlink::Error) -> io::Error {
    io::Error::other(error.to_string())
}

#[track_caller]
fn in_thread(what: &str, job: impl FnOnce() -> io::Result<()> + Send) {
    let done = std::thread::scope(|scope| scope.spawn(job).join());
    match done {
        Ok(Ok(())) => {}
        Ok(Err(e)) => panic!("{what}: {e}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
