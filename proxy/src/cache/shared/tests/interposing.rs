//! What others do between two commands of an edge makes no entry younger than it is.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;

/// The length of the first command, if it is whole.
fn first_command(bytes: &[u8]) -> Option<usize> {
    let line = |at: usize| {
        let end = at + bytes.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let number: usize = std::str::from_utf8(&bytes[at + 1..end]).ok()?.parse().ok()?;
        Some((number, end + 2))
    };
    let (words, mut at) = line(0)?;
    for _ in 0..words {
        let (length, start) = line(at)?;
        at = start + length + 2;
    }
    (at <= bytes.len()).then_some(at)
}

/// Passes one command after the other on to `server`, and calls `between` after each that was answered without an error.
async fn interposed(server: SocketAddr, between: impl Fn() + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut edge, _)) = listener.accept().await {
            let (mut server, between) = (TcpStream::connect(server).await.unwrap(), between.clone());
            tokio::spawn(async move {
                let (mut asked, mut answer) = (Vec::new(), vec![0; 1 << 16]);
                while edge.read_buf(&mut asked).await.is_ok_and(|read| read > 0) {
                    while let Some(length) = first_command(&asked) {
                        server.write_all(&asked[..length]).await.unwrap();
                        asked.drain(..length);
                        let read = server.read(&mut answer).await.unwrap();
                        if answer[0] != b'-' {
                            between();
                        }
                        edge.write_all(&answer[..read]).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn an_entry_is_as_old_as_it_is_whatever_is_written_in_its_place_meanwhile() {
    let mut fleet = Fleet::new();
    fleet.tell(1);
    let writer = fleet.edge(1);
    let mut guard = writer.asks("/a");
    guard.head(http::StatusCode::OK, &map(&[("cache-control", "max-age=3000")]), &[], noon());
    guard.write(&bytes::Bytes::from_static(b"old"));
    guard.finish().unwrap();
    let written = || fleet.server.ask(&["KEYS", "weir:cache:*"]);
    while written().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let name = written();
    // The same, as it is after a thousand seconds, and as if it had been fetched just now.
    fleet.server.ask(&["COPY", &name, "new"]);
    fleet.server.ask(&["COPY", &name, "old"]);
    fleet.server.ask(&["PEXPIRE", "old", "2000000"]);
    let (server, of) = (Arc::clone(&fleet.server), name.clone());
    let between = move || drop(server.ask(&["COPY", "new", &of, "REPLACE"]));
    let address = interposed(fleet.server.address(), between).await;
    fleet.plan = Fleet::plan(&format!("redis://{address}"));
    let there = fleet.edge(1);
    // Connected, and nothing of it is in the way any more.
    assert_eq!(there.finds("/none").await, None);
    fleet.server.ask(&["COPY", "old", &name, "REPLACE"]);
    let (_, ttl) = there.asks("/a").ask_fleet(PATIENCE, noon()).await.unwrap();
    assert!(ttl <= 2000, "{ttl}");
}
