//! Who may see the status page: it names people.
//!
//! Pure: headers in, an answer out. Without a token the page is for this machine alone, under a name of this machine: a
//! web page elsewhere can give its own name our address, and would then read ours in its visitor's browser.

use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Secret;

/// What the listener was told.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Whether only this machine can reach us.
    is_local: bool,
    address: IpAddr,
    token: Option<Secret>,
}

/// Why somebody may not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Reachable from elsewhere, and there is no token.
    NoToken,
    /// No token given, or another one.
    WrongToken,
    /// Asked for under a name that is not this machine's.
    ForeignHost,
    /// Asked for by a script in somebody's browser.
    Script,
}

/// The headers of a request that tell who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    pub host: Option<&'a str>,
    pub authorization: Option<&'a str>,
    /// `Sec-Fetch-Mode`: only browsers send it, and a script cannot change it.
    pub fetch_mode: Option<&'a str>,
}

impl Refusal {
    pub fn explanation(self) -> &'static str {
        match self {
            Self::NoToken => {
                "This page shows people, and it can be reached from other machines: it needs a token. \
                 Set LITELLM_WEBUI_SYNC_HTTP_TOKEN, or LITELLM_WEBUI_SYNC_HTTP_TOKEN_FILE to a file that holds one \
                 (`openssl rand -hex 32` makes one), and restart; or listen on 127.0.0.1.\n"
            }
            Self::WrongToken => {
                "This page needs the token in LITELLM_WEBUI_SYNC_HTTP_TOKEN: as the password in a browser (any user \
                 name), or as \"Authorization: Bearer …\".\n"
            }
            Self::ForeignHost => {
                "Without a token this page answers only as localhost or 127.0.0.1, so that no other web page can read \
                 it. To use another name, set LITELLM_WEBUI_SYNC_HTTP_TOKEN and restart.\n"
            }
            Self::Script => {
                "This is for programs, and for people who open it; not for scripts of a web page.\n"
            }
        }
    }
}

impl Guard {
    /// `address`: what we listen on.
    pub fn new(address: SocketAddr, token: Option<Secret>) -> Self {
        let address = address.ip().to_canonical();
        Self { is_local: address.is_loopback(), address, token }
    }

    /// Judges a request for a page that names people.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        match &self.token {
            Some(_) if self.has_token(asked) => Ok(()),
            Some(_) => Err(Refusal::WrongToken),
            None if !self.is_local => Err(Refusal::NoToken),
            None if asked.host.is_some_and(|host| self.is_ours(host)) => Ok(()),
            None => Err(Refusal::ForeignHost),
        }
    }

    /// Judges a request for what needs no token: metrics and health. Where only this machine reaches us, it asks by a name of
    /// this machine; elsewhere Prometheus and load balancers use what names they like, but no web page's script may.
    ///
    /// # Errors
    /// Why not.
    pub fn know(&self, asked: &Asked<'_>) -> Result<(), Refusal> {
        if self.has_token(asked) || asked.host.is_some_and(|host| self.is_ours(host)) {
            return Ok(());
        }
        match asked.fetch_mode {
            _ if self.is_local => Err(Refusal::ForeignHost),
            None | Some("navigate") => Ok(()),
            Some(_) => Err(Refusal::Script),
        }
    }

    fn has_token(&self, asked: &Asked<'_>) -> bool {
        let given = asked.authorization.and_then(given);
        self.token
            .as_ref()
            .zip(given)
            .is_some_and(|(token, given)| is_same(given.as_bytes(), token.expose().as_bytes()))
    }

    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        match name.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback() || ip.to_canonical() == self.address,
            // Browsers resolve this name themselves.
            Err(_) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        }
    }
}

/// The token in the header: `Bearer …`, or the password of `Basic …`.
fn given(authorization: &str) -> Option<String> {
    let (scheme, value) = authorization.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}

/// Takes as long whatever differs: neither the token nor its length can be found by measuring.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    Sha256::digest(given).ct_eq(&Sha256::digest(wanted)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(address: &str, token: Option<&str>) -> Guard {
        Guard::new(address.parse().unwrap(), token.map(|token| Secret::new(token.to_owned())))
    }

    fn asked<'a>(host: Option<&'a str>, authorization: Option<&'a str>) -> Asked<'a> {
        Asked { host, authorization, fetch_mode: None }
    }

    #[test]
    fn what_needs_no_token_is_still_not_for_other_web_pages() {
        let (local, open) = (guard("127.0.0.1:9466", None), guard("0.0.0.0:9466", None));
        let token = guard("127.0.0.1:9466", Some("0123456789abcdef"));
        for host in [Some("evil.test:9466"), Some("10.0.0.1"), None] {
            assert_eq!(local.know(&asked(host, None)), Err(Refusal::ForeignHost), "{host:?}");
            assert_eq!(token.know(&asked(host, None)), Err(Refusal::ForeignHost), "{host:?}");
            assert_eq!(token.know(&asked(host, Some("Bearer 0123456789abcdef"))), Ok(()), "{host:?}");
            assert_eq!(open.know(&asked(host, None)), Ok(()), "{host:?}");
            for (mode, judged) in
                [("cors", Err(Refusal::Script)), ("no-cors", Err(Refusal::Script)), ("navigate", Ok(()))]
            {
                let asked = Asked { host, fetch_mode: Some(mode), ..Asked::default() };
                assert_eq!(open.know(&asked), judged, "{host:?} {mode}");
            }
        }
        assert_eq!(local.know(&asked(Some("localhost:9466"), None)), Ok(()));
    }

    #[test]
    fn without_a_token_only_this_machine_is_answered_under_its_own_name() {
        let local = guard("127.0.0.1:9466", None);
        for host in [
            "localhost",
            "LocalHost:9466",
            "localhost.",
            "127.0.0.1:9466",
            "127.8.9.1",
            "[::1]:9466",
            "[::1]",
        ] {
            assert_eq!(local.admit(&asked(Some(host), None)), Ok(()), "{host}");
        }
        for host in [
            "evil.test",
            "localhost.evil.test",
            "evil.test:9466",
            "10.0.0.1",
            "",
            "[",
            "127.0.0.1.evil.test",
            "localhost@evil",
        ] {
            assert_eq!(local.admit(&asked(Some(host), None)), Err(Refusal::ForeignHost), "{host}");
        }
        assert_eq!(local.admit(&asked(None, None)), Err(Refusal::ForeignHost));
        for open in ["0.0.0.0:9466", "10.0.0.7:9466", "[::]:9466"] {
            assert_eq!(
                guard(open, None).admit(&asked(Some("localhost"), None)),
                Err(Refusal::NoToken),
                "{open}"
            );
        }
        assert_eq!(guard("[::ffff:127.0.0.1]:1", None).admit(&asked(Some("localhost"), None)), Ok(()));
    }

    #[test]
    fn with_a_token_it_is_the_token_that_counts_everywhere() {
        for address in ["127.0.0.1:9466", "0.0.0.0:9466"] {
            let guard = guard(address, Some("0123456789abcdef"));
            let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
            for good in [
                "Bearer 0123456789abcdef".to_owned(),
                "bearer  0123456789abcdef ".to_owned(),
                basic("me:0123456789abcdef"),
                basic(":0123456789abcdef"),
            ] {
                assert_eq!(guard.admit(&asked(Some("sync.example"), Some(&good))), Ok(()), "{good}");
            }
            for bad in [
                "",
                "Bearer",
                "Bearer ",
                "Bearer 0123456789abcde",
                "Basic !",
                "Digest 0123456789abcdef",
                &basic("0123456789abcdef"),
                &basic("0123456789abcdef:"),
                &basic("me:0123456789abcdef:"),
            ] {
                assert_eq!(
                    guard.admit(&asked(Some("localhost"), Some(bad))),
                    Err(Refusal::WrongToken),
                    "{bad}"
                );
            }
            assert_eq!(guard.admit(&asked(Some("localhost"), None)), Err(Refusal::WrongToken));
        }
    }
}
