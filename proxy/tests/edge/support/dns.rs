//! A name server with a script: whatever it was told last, and "no such name" for everything else.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SRV},
    },
};

type Told = HashMap<(Name, RecordType), Vec<Record>>;

/// A running name server; its thread ends with the test's process.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    told: Arc<Mutex<Told>>,
    asked: Arc<AtomicUsize>,
}

impl Dns {
    pub(crate) fn start() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let address = socket.local_addr().unwrap();
        let (told, asked) = (Arc::<Mutex<Told>>::default(), Arc::<AtomicUsize>::default());
        let (known, count) = (Arc::clone(&told), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut packet = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut packet) {
                let Ok(question) = Message::from_vec(&packet[..length]) else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&question, &known.lock().unwrap());
                let _ = socket.send_to(&answer.to_vec().unwrap(), client);
            }
        });
        Self { address, told, asked }
    }

    /// From now on `host` has these addresses; none: it does not exist.
    pub(crate) fn tell(&self, host: &str, ttl: u32, addresses: &[Ipv4Addr]) {
        self.put(host, RecordType::A, ttl, addresses.iter().map(|ip| RData::A(A(*ip))).collect());
    }

    /// From now on `service` is served by these: priority, weight, port, host.
    pub(crate) fn tell_service(&self, service: &str, ttl: u32, servers: &[(u16, u16, u16, &str)]) {
        let record = |(priority, weight, port, host): &(u16, u16, u16, &str)| {
            RData::SRV(SRV::new(*priority, *weight, *port, name(host)))
        };
        self.put(service, RecordType::SRV, ttl, servers.iter().map(record).collect());
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn put(&self, host: &str, kind: RecordType, ttl: u32, data: Vec<RData>) {
        let records = data.into_iter().map(|data| Record::from_rdata(name(host), ttl, data)).collect();
        self.told.lock().unwrap().insert((name(host), kind), records);
    }
}

fn name(text: &str) -> Name {
    format!("{text}.").parse().unwrap()
}

fn answer(question: &Message, told: &Told) -> Message {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    let Some(query) = question.queries.first() else { return answer };
    answer.add_query(query.clone());
    let host = query.name().to_lowercase();
    match told.get(&(host.clone(), query.query_type())) {
        Some(records) if !records.is_empty() => {
            answer.add_answers(records.iter().cloned());
        }
        _ if told.iter().any(|((known, _), records)| *known == host && !records.is_empty()) => {}
        _ => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    answer
}
