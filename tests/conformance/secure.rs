//! What the tests of TLS share: an authority with its certificates in files, clients that trust it.

use crate::kit::*;
use hawser::config::{CertificateFiles, Front, Listener, Tls, TlsVersion};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::{TLS12, TLS13},
};
use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

pub const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A CA, and a folder for what it issues.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub folder: TempDir,
}

/// A client's connection.
pub type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.crt"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Writes `file.crt` and `file.key`, in place of what was there.
    pub fn issue(&self, file: &str, names: &[&str], kind: &'static SignatureAlgorithm) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.write(file, &CertificateParams::new(names).unwrap(), kind)
    }

    pub fn write(&self, file: &str, params: &CertificateParams, kind: &'static SignatureAlgorithm) -> CertificateFiles {
        let key = KeyPair::generate_for(kind).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let path = |end: &str| self.folder.path().join(format!("{file}.{end}"));
        let files = CertificateFiles { cert: path("crt"), key: path("key") };
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&files.cert, format!("{}{}", cert.pem(), self.issuer.pem())).unwrap();
        files
    }

    /// A client's certificate with this subject, for so many seconds.
    fn person(&self, parts: &[(DnType, &str)], seconds: u64) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::default();
        params.not_after = (SystemTime::now() + Duration::from_secs(seconds)).into();
        params.distinguished_name = DistinguishedName::new();
        parts.iter().for_each(|(kind, text)| params.distinguished_name.push(kind.clone(), *text));
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }

    /// A client without a certificate.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(hawser::trust::tls::provider());
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(self.roots());
        Arc::new(builder.with_no_client_auth())
    }

    /// A client that shows a certificate of `issuer`.
    pub fn client_as(&self, issuer: &Self, parts: &[(DnType, &str)]) -> Arc<ClientConfig> {
        self.client_for(issuer, parts, 3600)
    }

    /// The same, for so many seconds.
    pub fn client_for(&self, issuer: &Self, parts: &[(DnType, &str)], seconds: u64) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(hawser::trust::tls::provider());
        let builder = builder.with_protocol_versions(BOTH).unwrap().with_root_certificates(self.roots());
        let (chain, key) = issuer.person(parts, seconds);
        Arc::new(builder.with_client_auth_cert(chain, key).unwrap())
    }

    /// A listener's TLS with one certificate for `localhost`.
    pub fn tls(&self) -> Tls {
        tls(vec![self.issue("localhost", &["localhost"], &PKCS_ECDSA_P256_SHA256)])
    }
}

pub fn tls(certificates: Vec<CertificateFiles>) -> Tls {
    Tls { certificates, min_version: TlsVersion::Tls12, clients: None }
}

pub fn front(tls: Tls) -> Front {
    Front { tls: Some(Arc::new(tls)), ..Front::default() }
}

/// One more listener with the routes of the first.
pub fn listener(setup: &hawser::web::Setup, front: Front) -> Listener {
    Listener { front, ..setup.web.listeners[0].clone() }
}

/// Connects and shakes hands.
pub fn secure(address: SocketAddr, config: &Arc<ClientConfig>, host: &str) -> io::Result<Stream> {
    secure_after(address, b"", config, host)
}

/// The same, after some bytes in the clear.
pub fn secure_after(address: SocketAddr, before: &[u8], config: &Arc<ClientConfig>, host: &str) -> io::Result<Stream> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_nodelay(true)?;
    socket.write_all(before)?;
    let name = host.to_owned().try_into().unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Asks on a connection that stays open; head and body.
pub fn exchange(stream: &mut Stream, request: &str) -> io::Result<(String, String)> {
    stream.write_all(request.as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body)?;
    Ok((head, String::from_utf8(body).unwrap()))
}

pub const HELLO: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// One request on a connection of its own; an error if its end is not told (`close_notify`).
pub fn ask_secure(address: SocketAddr, config: &Arc<ClientConfig>, host: &str) -> io::Result<String> {
    let mut stream = secure(address, config, host)?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The certificate that was shown.
pub fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

/// The first certificate of a file.
pub fn in_file(files: &CertificateFiles) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_file(&files.cert).unwrap()
}
