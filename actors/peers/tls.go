package peers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// CertName is the DNS name that every peer's certificate carries, unless NewTLS is given another.
// Peers are dialled by address, and pod addresses are reused, so this name distinguishes a peer
// from others that hold a certificate of the same authority.
const CertName = "troupe-peer"

// TLS proves this pod's identity to its peers and checks theirs. It rereads its files when they
// change: a handshake that begins after the change uses the new ones.
type TLS struct {
	files [3]string // certificate, key, authorities
	name  string
	log   *slog.Logger

	mu     sync.Mutex
	stamps [3]stamp // of what was read last, whether or not it could be used
	cert   *tls.Certificate
	roots  *x509.CertPool
}

// stamp distinguishes one version of a file from the next. Kubernetes replaces the files of a
// Secret by renaming a symbolic link, so the path then leads to another file.
type stamp struct {
	modified time.Time
	size     int64
	info     os.FileInfo
}

// NewTLS reads a certificate, its key and the certificates of the authorities that may sign peers'
// certificates, all in PEM. Every peer's certificate, including this one, must carry name; an empty
// name means CertName. log may be nil.
func NewTLS(cert, key, ca, name string, log *slog.Logger) (*TLS, error) {
	if name == "" {
		name = CertName
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &TLS{files: [3]string{cert, key, ca}, name: name, log: log}
	if err := p.read(); err != nil {
		return nil, err
	}
	// Report now a certificate that peers would refuse, rather than let every peer find out.
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if err := p.verify(p.cert.Leaf, p.cert.Certificate[1:], use); err != nil {
			return nil, fmt.Errorf("%s: peers would refuse it: %w", cert, err)
		}
	}
	return p, nil
}

// read loads the files. It is called with mu held, or before p is shared.
func (p *TLS) read() error {
	var stamps [3]stamp
	var content [3][]byte
	for i, file := range p.files {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		stamps[i] = stamp{info.ModTime(), info.Size(), info}
		if content[i], err = os.ReadFile(file); err != nil {
			return err
		}
	}
	p.stamps = stamps
	cert, err := tls.X509KeyPair(content[0], content[1])
	if err != nil {
		return fmt.Errorf("%s and %s: %w", p.files[0], p.files[1], err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content[2]) {
		return fmt.Errorf("%s: there is no certificate in it", p.files[2])
	}
	p.cert, p.roots = &cert, roots
	return nil
}

// refresh rereads the files if one has changed. If they cannot be used, for example because the key
// of a new certificate has not been written yet, the previous ones stay in force.
func (p *TLS) refresh() {
	changed := false
	for i, file := range p.files {
		info, err := os.Stat(file)
		if err != nil {
			continue // between two versions; the next handshake looks again
		}
		was := p.stamps[i]
		changed = changed || !info.ModTime().Equal(was.modified) || info.Size() != was.size || !os.SameFile(info, was.info)
	}
	if !changed {
		return
	}
	if err := p.read(); err != nil {
		p.log.Error("peer certificates not read; the earlier ones stay in force", "err", err)
		return
	}
	p.log.Info("peer certificates read again", "not_after", p.cert.Leaf.NotAfter)
}

func (p *TLS) current() (*tls.Certificate, *x509.CertPool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refresh()
	return p.cert, p.roots
}

// Validity returns the time at which peers begin to refuse the certificate in force, because it or
// an authority above it expires, and the certificate's total lifetime. If peers already refuse it
// for a reason other than its age, that time is now.
func (p *TLS) Validity(now time.Time) (until time.Time, lifetime time.Duration) {
	cert, roots := p.current()
	chains, err := p.chains(roots, cert.Leaf, cert.Certificate[1:], x509.ExtKeyUsageClientAuth)
	if err != nil {
		until = cert.Leaf.NotAfter
		if now.Before(until) {
			until = now
		}
	}
	for _, chain := range chains { // any one will do, and each is as good as the first of it to expire
		first := slices.MinFunc(chain, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
		if first.NotAfter.After(until) {
			until = first.NotAfter
		}
	}
	return until, cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)
}

// verify checks a certificate for one side's use. It replaces the standard verification, which
// would use the roots and the host name from the time when the configuration was made.
func (p *TLS) verify(leaf *x509.Certificate, others [][]byte, use x509.ExtKeyUsage) error {
	_, roots := p.current()
	_, err := p.chains(roots, leaf, others, use)
	return err
}

// chains returns the chains from a certificate to one of the roots.
func (p *TLS) chains(
	roots *x509.CertPool, leaf *x509.Certificate, others [][]byte, use x509.ExtKeyUsage,
) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, der := range others {
		if cert, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(cert)
		}
	}
	return leaf.Verify(x509.VerifyOptions{
		DNSName: p.name, Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{use},
	})
}

// config returns the configuration of handshakes. The other side's certificate must allow use.
func (p *TLS) config(use x509.ExtKeyUsage) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		ServerName: p.name,
		ClientAuth: tls.RequestClientCert, // VerifyConnection insists on it, with an error that can be told from others
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, _ := p.current()
			return cert, nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert, _ := p.current()
			return cert, nil
		},
		InsecureSkipVerify: true, // VerifyConnection does it, with the roots of that moment
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return errNoPeerCertificate
			}
			var others [][]byte
			for _, c := range state.PeerCertificates[1:] {
				others = append(others, c.Raw)
			}
			if err := p.verify(state.PeerCertificates[0], others, use); err != nil {
				return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
			}
			return nil
		},
	}
}

var (
	errNoPeerCertificate = errors.New("the peer has no certificate")
	errTooMany           = errors.New("too many connections")
)

// countedCredentials reports failed handshakes, which gRPC only logs.
type countedCredentials struct {
	credentials.TransportCredentials
	refused func(reason, remote string, err error)
}

func (p *TLS) server(refused func(reason, remote string, err error)) credentials.TransportCredentials {
	return countedCredentials{credentials.NewTLS(p.config(x509.ExtKeyUsageClientAuth)), refused}
}

func (p *TLS) client(refused func(reason, remote string, err error)) credentials.TransportCredentials {
	return countedCredentials{credentials.NewTLS(p.config(x509.ExtKeyUsageServerAuth)), refused}
}

// ServerHandshake implements credentials.TransportCredentials.
func (c countedCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	remote := raw.RemoteAddr().String()
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if limited, ok := raw.(*limitedConn); ok && err == nil {
		limited.hasProved()
	}
	c.count(remote, err)
	return conn, info, err
}

// ClientHandshake implements credentials.TransportCredentials.
func (c countedCredentials) ClientHandshake(
	ctx context.Context, authority string, raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	remote := raw.RemoteAddr().String()
	conn, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, raw)
	c.count(remote, err)
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (c countedCredentials) Clone() credentials.TransportCredentials {
	return countedCredentials{c.TransportCredentials.Clone(), c.refused}
}

func (c countedCredentials) count(remote string, err error) {
	var header tls.RecordHeaderError
	var verification *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, context.Canceled):
		// EOF: somebody looked whether the port is open.
	case errors.As(err, &header):
		c.refused(RefusedPlaintext, remote, err)
	case errors.As(err, &verification), errors.Is(err, errNoPeerCertificate),
		errors.As(err, &alert) && alert.Op == "remote error":
		c.refused(RefusedCertificate, remote, err)
	default:
		c.refused(RefusedHandshake, remote, err)
	}
}
