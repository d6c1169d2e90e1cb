//! Whose request it is: the peer's address, or what trusted hops say of it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header};
use ipnet::IpNet;
use weir_config::plan::{Clients, ForwardedBy};

/// The address of the client that made a request.
///
/// Shape:  walks the forwarding field from its right end, where the nearest hop wrote, as long as the hop that wrote an
///         entry is trusted; the first address that is not trusted is the client. An entry that is no address (`unknown`, an
///         obfuscated name, garbage) ends the walk at the hop that wrote it. A client can therefore only add entries that
///         nobody reads.
/// Source: nginx `real_ip_recursive on`; RFC 7239 for `Forwarded`.
#[must_use]
pub fn client(peer: IpAddr, headers: &HeaderMap, clients: &Clients) -> IpAddr {
    walk(peer, headers, &clients.trusted, clients.header)
}

fn walk(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet], by: ForwardedBy) -> IpAddr {
    // An IPv4 client of a socket that also serves IPv6 comes as ::ffff:a.b.c.d.
    let mut client = peer.to_canonical();
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&client) {
        return client;
    }
    let name = match by {
        ForwardedBy::XForwardedFor => "x-forwarded-for",
        ForwardedBy::Forwarded => header::FORWARDED.as_str(),
    };
    let values: Vec<_> = headers.get_all(name).iter().collect();
    for value in values.into_iter().rev() {
        // One unreadable field hides everything to its left.
        let Ok(text) = value.to_str() else { return client };
        for entry in entries(text).into_iter().rev() {
            let said = match by {
                ForwardedBy::XForwardedFor => address(entry),
                ForwardedBy::Forwarded => forwarded_for(entry).and_then(address),
            };
            let Some(said) = said else { return client };
            client = said;
            if !is_trusted(&client) {
                return client;
            }
        }
    }
    client
}

/// Splits at the commas outside of quotes.
fn entries(text: &str) -> Vec<&str> {
    let mut is_quoted = false;
    text.split(|character| {
        is_quoted ^= character == '"';
        character == ',' && !is_quoted
    })
    .map(str::trim)
    .collect()
}

/// The value of `for` in one element of `Forwarded`, without its quotes.
fn forwarded_for(element: &str) -> Option<&str> {
    let mut values = element.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    });
    let value = values.next()?;
    // Two of them contradict each other.
    values
        .next()
        .is_none()
        .then(|| value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value))
}

/// `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]`, `[::1]:5`.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let plain = text.parse().ok().or_else(bracketed);
    plain
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .map(|address| address.to_canonical())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn ask(peer: &str, by: ForwardedBy, values: &[&str]) -> String {
        let name = if by == ForwardedBy::Forwarded { "forwarded" } else { "x-forwarded-for" };
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        walk(peer.parse().unwrap(), &headers, &trusted, by).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(ask("9.9.9.9", ForwardedBy::XForwardedFor, &["1.1.1.1"]), "9.9.9.9");
        assert_eq!(ask("::ffff:9.9.9.9", ForwardedBy::XForwardedFor, &[]), "9.9.9.9");
    }

    #[test]
    fn trusted_hops_are_walked_from_the_right() {
        let ask = |values: &[&str]| ask("10.0.0.1", ForwardedBy::XForwardedFor, values);
        assert_eq!(ask(&[]), "10.0.0.1");
        assert_eq!(ask(&["1.1.1.1"]), "1.1.1.1");
        assert_eq!(ask(&["6.6.6.6, 1.1.1.1, 10.0.0.2"]), "1.1.1.1");
        assert_eq!(ask(&["6.6.6.6", "1.1.1.1:80 ,10.0.0.3", "[fd00::1]:9"]), "1.1.1.1");
        assert_eq!(ask(&["10.0.0.3,10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn garbage_ends_the_walk_at_the_hop_that_passed_it_on() {
        let ask = |values: &[&str]| ask("10.0.0.1", ForwardedBy::XForwardedFor, values);
        for garbage in ["unknown", "", "1.1.1", "1.1.1.1 2", "_x", "\"1.1.1.1\""] {
            assert_eq!(ask(&[&format!("1.1.1.1, {garbage}, 10.0.0.2")]), "10.0.0.2", "{garbage:?}");
        }
    }

    #[test]
    fn forwarded_is_read_with_its_quotes() {
        let ask = |values: &[&str]| ask("10.0.0.1", ForwardedBy::Forwarded, values);
        assert_eq!(ask(&["for=6.6.6.6, For=\"[2001:db8::1]:4711\";proto=http;by=10.0.0.9"]), "2001:db8::1");
        assert_eq!(ask(&["for=1.1.1.1, host=\"a,b\";for=10.0.0.2"]), "1.1.1.1");
        assert_eq!(ask(&["for=1.1.1.1, for=10.0.0.2;for=2.2.2.2"]), "10.0.0.1");
        assert_eq!(ask(&["for=1.1.1.1, for=_hidden"]), "10.0.0.1");
        assert_eq!(ask(&["1.1.1.1"]), "10.0.0.1");
    }
}
