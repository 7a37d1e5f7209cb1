//! Mutual TLS 1.3 between the nodes: the cluster's own CA, and the name that the configuration expects.
//!
//! A good chain is not enough: only members listed in the configuration are let in. No tickets and no resumption: each
//! connection proves both identities anew. The provider is named everywhere, none is installed for the process.

use super::identity::{Identity, facts_of};
use crate::cluster::Name;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// The protocol spoken inside, by ALPN.
pub const ALPN: &[u8] = b"hawser/1";

/// The one provider of this process.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    Arc::clone(&PROVIDER)
}

/// What a connector must be given as server name. It is not sent and not looked at: the configuration of
/// [`client_config`] knows whom it expects.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// The settings with which this node accepts connections of `peer`.
///
/// # Errors
/// If the library refuses the identity.
pub fn server_config(identity: &Identity, peer: Name) -> Result<Arc<ServerConfig>, Error> {
    let inner = WebPkiClientVerifier::builder_with_provider(Arc::clone(&identity.roots), provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(PeerAsClient { peer, inner }))
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The settings with which this node connects to `peer`.
///
/// # Errors
/// If the library refuses the identity.
pub fn client_config(identity: &Identity, peer: Name) -> Result<Arc<ClientConfig>, Error> {
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::clone(&identity.roots), provider())
        .build()
        .map_err(|e| Error::General(e.to_string()))?;
    let verifier = PeerAsServer { peer, roots: Arc::clone(&identity.roots), inner };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// The settings with which this node asks itself: whoever answers proves that it has the key of some certificate, and
/// nothing is believed of that. Never for anything but a question whether somebody answers.
#[must_use]
pub fn anybodys_config() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider speaks the versions that it comes with");
        let verifier = Arc::new(Anybody);
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Arc::new(config)
    });
    Arc::clone(&CONFIG)
}

/// Believes every certificate, and checks that its key is there.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The chain is good, and the name is not the one that the configuration expects here.
#[derive(Clone, PartialEq, Eq)]
pub struct WrongPeer {
    /// What the certificate says, or what is wrong with it.
    pub found: String,
    /// Whom the configuration expects.
    pub expected: Name,
}

impl fmt::Display for WrongPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate {}, and {} is expected here", self.found, self.expected)
    }
}

impl fmt::Debug for WrongPeer {
    /// As for people: `rustls::Error` shows the errors of others so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for WrongPeer {}

fn check_name(certificate: &CertificateDer<'_>, expected: Name) -> Result<(), Error> {
    let found = match facts_of(certificate) {
        Ok(facts) if facts.name == expected => return Ok(()),
        Ok(facts) => format!("is of {}", facts.name),
        Err(what) => what,
    };
    let wrong = WrongPeer { found, expected };
    Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(wrong)))))
}

/// What the library's own verifiers do is theirs; both traits ask for it by the same three methods.
macro_rules! signatures_by_inner {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.inner.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.inner.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.inner.supported_verify_schemes()
        }
    };
}

/// The peer when it connects to us: the library's check of the chain, then the name.
#[derive(Debug)]
struct PeerAsClient {
    peer: Name,
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for PeerAsClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        check_name(end_entity, self.peer).map(|()| verified)
    }

    signatures_by_inner!();
}

/// The peer when we connect to it: the chain to the cluster's CA, then the name, which need not be a DNS name.
#[derive(Debug)]
struct PeerAsServer {
    peer: Name,
    roots: Arc<RootCertStore>,
    inner: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for PeerAsServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        check_name(end_entity, self.peer)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_inner!();
}
