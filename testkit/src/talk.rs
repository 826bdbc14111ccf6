//! Short questions and answers over TCP and UDP between namespaces, by sockets of the test itself:
//! many a second, where a program for each would take longer than the rest of the test.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use crate::lab::Net;

/// Over what a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
}

/// Runs `work` in a thread inside of the namespace. A socket belongs to the namespace of the thread
/// that makes it, wherever it is used.
pub fn inside<T: Send>(net: &Net, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let path = net.path();
    let moved = move || {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        work()
    };
    thread::scope(|scope| scope.spawn(moved).join()).unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
}

/// From now on `name` is the answer to every TCP connection and every datagram to `address`, until
/// the test ends.
#[track_caller]
pub fn answer(net: &Net, address: &str, name: &str) {
    let address: SocketAddr = address.parse().unwrap_or_else(|e| panic!("{address}: {e}"));
    let sockets = inside(net, move || Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?)));
    let (listener, socket) = sockets.unwrap_or_else(|e| panic!("{address}: {e}"));
    let (tcp, udp) = (name.to_owned(), name.to_owned());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(tcp.as_bytes());
        }
    });
    thread::spawn(move || {
        let mut question = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(udp.as_bytes(), from);
        }
    });
}

/// Asks `to`, and waits for the answer as long as `patience`. `None`: it was refused or silent.
#[track_caller]
pub fn ask(net: &Net, over: Over, from: Option<&str>, to: &str, patience: Duration) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap_or_else(|e| panic!("{to}: {e}"));
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let from = from.map_or(any, |from| from.parse().unwrap_or_else(|e| panic!("{from}: {e}")));
    let from = SocketAddr::new(from, 0);
    match over {
        Over::Tcp => inside(net, move || by_connection(from, to, patience)).ok(),
        Over::Udp => inside(net, move || by_datagram(from, to, patience)).ok(),
    }
}

fn by_connection(from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<String> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    let mut stream = TcpStream::from(socket);
    // socket(7), SO_SNDTIMEO: it bounds connect(2), too.
    stream.set_write_timeout(Some(patience))?;
    stream.set_read_timeout(Some(patience))?;
    connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn by_datagram(from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<String> {
    let socket = UdpSocket::bind(from)?;
    // From now on it takes answers from the address that was asked, and from no other.
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"?")?;
    let mut text = [0; 64];
    let length = socket.recv(&mut text)?;
    Ok(String::from_utf8_lossy(text.get(..length).unwrap_or_default()).into_owned())
}
