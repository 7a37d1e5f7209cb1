//! Tests of what is written before HTTP: TLS, HSTS, PROXY headers, redirects.

use crate::{
    cluster::Name,
    config::{
        Checked, ClientNeed, Config, Faults, Machine, ProxyVersion, RouteAction, Scene, TlsVersion, check,
        values::Listener,
    },
    trust::site::{Facts, Standing, Trouble, Which},
};
use ipnet::IpNet;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

const HEAD: &str = r#"[cluster]
name = "shop"
[[node]]
name = "n1"
links = "10.0.0.1"
[[node]]
name = "n2"
links = "10.0.0.2"
[witness]
name = "w"
address = "10.0.0.9"
[[group]]
name = "web"
vip = [{ address = "192.0.2.10/24", interface = "eth0" }]
"#;

/// A machine on which the name of a certificate says what is wrong with it.
struct Pretended {
    may_be_denied: bool,
}

impl Machine for Pretended {
    fn networks(&self, _: &str) -> Option<Vec<IpNet>> {
        Some(vec!["192.0.2.1/24".parse().unwrap()])
    }

    fn has_address(&self, _: IpAddr) -> bool {
        true
    }

    fn is_dir(&self, _: &Path) -> bool {
        true
    }

    fn certificate(&self, cert: &Path, key: &Path) -> Result<(Facts, Standing), Trouble> {
        assert!(cert.is_absolute() && key.is_absolute());
        let trouble = |which| Trouble {
            which,
            what: "it is bad".to_owned(),
            help: "make it good".to_owned(),
            not_permitted: cert.ends_with("denied.crt"),
        };
        let standing = match cert.file_name().and_then(|name| name.to_str()) {
            Some("bad.crt") => return Err(trouble(Which::Certificate)),
            Some("badkey.crt" | "denied.crt") => return Err(trouble(Which::Key)),
            Some("old.crt") => Standing::Expired(3),
            Some("young.crt") => Standing::NotYet(1),
            Some("soon.crt") => Standing::Soon(20),
            _ => Standing::Holds,
        };
        let names = if cert.ends_with("nameless.crt") { vec![] } else { vec!["shop.example".to_owned()] };
        Ok((Facts { names, not_before: UNIX_EPOCH, not_after: UNIX_EPOCH, key_kind: "rsa" }, standing))
    }

    fn client_ca(&self, path: &Path) -> Result<(), Trouble> {
        let what = "it is no CA".to_owned();
        if path.ends_with("bad.crt") {
            return Err(Trouble { which: Which::ClientCa, what, help: String::new(), not_permitted: false });
        }
        Ok(())
    }

    fn ticket_keys(&self, path: &Path) -> Result<(), Trouble> {
        let what = "it holds no key".to_owned();
        if path.ends_with("bad.keys") {
            return Err(Trouble { which: Which::TicketKeys, what, help: String::new(), not_permitted: false });
        }
        Ok(())
    }

    fn may_be_denied(&self) -> bool {
        self.may_be_denied
    }
}

fn checked(rest: &str, machine: Option<&dyn Machine>) -> Result<Checked<Config>, Faults> {
    check(&format!("{HEAD}{rest}"), &Scene { path: Path::new("/etc/hawser/hawser.toml"), me: None, machine })
}

fn listeners(rest: &str) -> Vec<Listener> {
    let checked = checked(rest, Some(&Pretended { may_be_denied: false })).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(checked.warnings, []);
    checked.config.web.listeners
}

/// Faults and warnings, with lines that begin at the text.
fn told(rest: &str, may_be_denied: bool) -> Vec<String> {
    let head = HEAD.lines().count();
    let line = |fault: crate::config::Fault| format!("{}: {fault}", fault.line.saturating_sub(head));
    match checked(rest, Some(&Pretended { may_be_denied })) {
        Ok(checked) => checked.warnings.into_iter().map(|w| format!("warning {}", line(w))).collect(),
        Err(faults) => faults.faults.into_iter().map(line).collect(),
    }
}

#[test]
fn one_certificate_is_one_line() {
    let listeners = listeners(
        "[[listener]]\naddress = [\"192.0.2.10:443\", \"192.0.2.10:8443\"]\nroot = \"/srv\"\nhsts = true\n\
         tls = { cert = \"shop.crt\", key = \"/etc/ssl/shop.key\" }\n",
    );
    let [one, other] = listeners.as_slice() else { panic!("{listeners:?}") };
    let tls = one.front.tls.as_ref().unwrap();
    assert!(Arc::ptr_eq(tls, other.front.tls.as_ref().unwrap()), "both addresses share what they show");
    let [files] = tls.certificates.as_slice() else { panic!("{tls:?}") };
    assert_eq!(files.cert, PathBuf::from("/etc/hawser/shop.crt"), "beside the file");
    assert_eq!(files.key, PathBuf::from("/etc/ssl/shop.key"));
    assert_eq!((tls.min_version, &tls.clients), (TlsVersion::Tls12, &None));
    assert_eq!(one.front.hsts.as_deref(), Some("max-age=31536000"));
    assert!(one.front.proxy_from.is_empty());
}

#[test]
fn more_of_tls_has_a_section_and_more_certificates_a_list() {
    let listeners = listeners(
        "[[listener]]\naddress = \"192.0.2.10:443\"\nroot = \"/srv\"\n\
         hsts = \"max-age=63072000; includeSubDomains\"\nproxy_protocol = [\"10.0.0.0/8\", \"192.0.2.7\"]\n\
         [listener.tls]\nmin_version = \"1.3\"\nclient_ca = \"staff.crt\"\nclient_auth = \"optional\"\n\
         [[listener.certificate]]\ncert = \"shop.crt\"\nkey = \"shop.key\"\n\
         [[listener.certificate]]\ncert = \"blog.crt\"\nkey = \"blog.key\"\n",
    );
    let [listener] = listeners.as_slice() else { panic!("{listeners:?}") };
    let tls = listener.front.tls.as_ref().unwrap();
    let certs: Vec<_> = tls.certificates.iter().map(|files| files.cert.file_name().unwrap()).collect();
    assert_eq!(certs, ["shop.crt", "blog.crt"]);
    assert_eq!(tls.min_version, TlsVersion::Tls13);
    assert_eq!(tls.clients.as_ref().unwrap().need, ClientNeed::Optional);
    assert_eq!(listener.front.hsts.as_deref(), Some("max-age=63072000; includeSubDomains"));
    let from: Vec<String> = listener.front.proxy_from.iter().map(ToString::to_string).collect();
    assert_eq!(from, ["10.0.0.0/8", "192.0.2.7/32"]);
}

#[test]
fn a_redirect_to_https_is_one_line() {
    let listeners = listeners(
        "[[listener]]\naddress = \"192.0.2.10:80\"\nredirect = \"https\"\n\
         [[listener]]\naddress = \"192.0.2.10:443\"\nroot = \"/srv\"\ntls = { cert = \"a\", key = \"b\" }\n",
    );
    assert!(matches!(listeners[0].routes[0].action, RouteAction::ToHttps { port: 443 }));
}

#[test]
fn an_upstream_can_be_told_the_client() {
    let rest = "[[listener]]\naddress = \"192.0.2.10:80\"\nupstream = \"app\"\n\
                [[upstream]]\nname = \"app\"\nservers = \"10.0.0.5:80\"\nproxy_protocol = \"v2\"\n";
    let config = checked(rest, None).unwrap().config;
    assert_eq!(config.web.upstreams[0].name, Name::new("app").unwrap());
    assert_eq!(config.web.upstreams[0].proxy_protocol, Some(ProxyVersion::V2));
    assert_eq!(
        told(&rest.replace("v2", "v3"), false),
        ["7: upstream[0].proxy_protocol: \"v3\" is not known; write \"v1\" or \"v2\""]
    );
}

#[test]
fn each_fault_before_http_is_told_with_its_line() {
    let listener = "[[listener]]\naddress = \"192.0.2.10:443\"\nroot = \"/srv\"\n";
    let tls = "tls = { cert = \"a.crt\", key = \"a.key\" }\n";
    for (rest, expected) in [
        ("tls = {}\n".to_owned(), "4: listener[0].tls: has no certificate; write tls = { cert"),
        ("tls = { cert = \"a\" }\n".to_owned(), "4: listener[0].tls: key is missing; write key = \"shop.key\""),
        ("tls = { key = \"a\" }\n".to_owned(), "4: listener[0].tls: cert is missing"),
        ("tls = true\n".to_owned(), "4: listener[0].tls: is a boolean, and a table is needed"),
        ("[[listener.certificate]]\ncert = \"a\"\n".to_owned(), "4: listener[0].certificate[0]: key is missing"),
        (
            "tls = { cert = \"a\", key = \"b\", min_version = \"1.1\" }\n".to_owned(),
            "4: listener[0].tls.min_version: \"1.1\" is not known; write \"1.2\" or \"1.3\"",
        ),
        (
            "tls = { cert = \"a\", key = \"b\", client_auth = \"required\" }\n".to_owned(),
            "4: listener[0].tls.client_auth: needs a client_ca",
        ),
        (
            "tls = { cert = \"a\", key = \"b\", client_ca = \"bad.crt\" }\n".to_owned(),
            "4: listener[0].tls.client_ca: it is no CA",
        ),
        ("hsts = true\n".to_owned(), "4: listener[0].hsts: is for listeners with tls"),
        (format!("{tls}hsts = \"1y\"\n"), "5: listener[0].hsts: \"1y\" is no such header; write hsts = true"),
        (
            "proxy_protocol = [\"10.0.0.1/8\"]\n".to_owned(),
            "4: listener[0].proxy_protocol[0]: 10.0.0.1/8 is an address in 10.0.0.0/8; write \"10.0.0.0/8\"",
        ),
        ("proxy_protocol = [\"0.0.0.0/0\"]\n".to_owned(), "4: listener[0].proxy_protocol[0]: 0.0.0.0/0 is everybody"),
        ("proxy_protocol = true\n".to_owned(), "4: listener[0].proxy_protocol: is a boolean"),
        ("tls = { cert = \"bad.crt\", key = \"k\" }\n".to_owned(), "4: listener[0].tls.cert: it is bad; make it good"),
        (
            "[[listener.certificate]]\ncert = \"badkey.crt\"\nkey = \"k\"\n".to_owned(),
            "6: listener[0].certificate[0].key: it is bad; make it good",
        ),
        ("[web]\nticket_keys = \"bad.keys\"\n".to_owned(), "5: web.ticket_keys: it holds no key"),
    ] {
        let told = told(&format!("{listener}{rest}"), false);
        assert!(told.len() == 1 && told[0].starts_with(expected), "{rest}{told:?}\n{expected}");
    }
    let redirect = |to: &str| told(&format!("[[listener]]\naddress = \"192.0.2.10:80\"\nredirect = \"{to}\"\n"), false);
    assert!(redirect("http")[0].starts_with("3: listener[0].redirect: \"http\" is nowhere to redirect to"));
    assert!(
        redirect("https")[0]
            .starts_with("warning 3: listener[0].redirect: no listener of this file has tls at port 443")
    );
    let at_tls = format!("{}redirect = \"https\"\n{tls}", listener.replace("root = \"/srv\"\n", ""));
    assert!(told(&at_tls, false)[0].contains("redirect: is at a listener with tls"), "{:?}", told(&at_tls, false));
    assert!(told(&format!("{listener}redirect = \"https\"\n"), false)[0].contains("has both root and redirect"));
}

#[test]
fn a_certificate_that_does_not_hold_is_told_and_keeps_nothing_from_starting() {
    let with = |cert: &str| {
        let rest = format!(
            "[[listener]]\naddress = \"192.0.2.10:443\"\nroot = \"/srv\"\ntls = {{ cert = \"{cert}\", key = \"k\" }}\n"
        );
        told(&rest, false)
    };
    for (cert, expected) in [
        ("old.crt", "EXPIRED 3 days ago"),
        ("young.crt", "is not valid yet, for 1 day"),
        ("soon.crt", "expires in 20 days"),
        ("nameless.crt", "has no DNS name"),
    ] {
        let told = with(cert);
        let begins = format!("warning 4: listener[0].tls.cert: /etc/hawser/{cert} {expected}");
        assert!(told.len() == 1 && told[0].starts_with(&begins), "{told:?}");
    }
}

#[test]
fn whoever_checks_need_not_be_allowed_to_read_keys_and_whoever_runs_must() {
    let rest =
        "[[listener]]\naddress = \"192.0.2.10:443\"\nroot = \"/srv\"\ntls = { cert = \"denied.crt\", key = \"k\" }\n";
    assert_eq!(told(rest, false), ["4: listener[0].tls.key: it is bad; make it good"]);
    let denied = "warning 4: listener[0].tls.key: it is bad; it was not checked: run as root to check it, too";
    assert_eq!(told(rest, true), [denied]);
    assert!(checked(&rest.replace("denied", "bad"), None).is_ok(), "another machine's files are not looked at");
}
