package gateway

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Options are the settings of a replica.
type Options struct {
	Version string // of the program

	Domain          string
	Address         string // of previews: HTTP, or TLS if there is a certificate
	AdminAddress    string
	CertificatesDir string // of tls.crt and tls.key; empty: no TLS
	BehindProxy     bool
	PasswordFile    string // of the proxy that signs people in; empty: people sign in by shares
	Ribbon          bool
	KeyHeader       string
	KeyMember       string
	MaxConnections  int
	IdleTimeout     time.Duration
	ShutdownDelay   time.Duration
	DrainTime       time.Duration
}

// AddFlags binds the options to flags and sets their defaults.
func (o *Options) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.Domain, "domain", "", "Domain of the previews' hosts, SERVICE--SANDBOX--NAMESPACE.DOMAIN. Required.")
	f.StringVar(&o.Address, "address", ":8080", "Address of the previews.")
	f.StringVar(&o.AdminAddress, "admin-address", ":8081", "Address of /metrics, /healthz and /readyz, plain HTTP.")
	f.StringVar(&o.CertificatesDir, "certificates-dir", "", "Directory of tls.crt and tls.key, with which previews are served over TLS; empty: plain HTTP, for a proxy in front that ends TLS.")
	f.BoolVar(&o.BehindProxy, "behind-proxy", false, "A proxy of one's own is in front: believe what it says in X-Forwarded-* of clients.")
	f.StringVar(&o.PasswordFile, "proxy-password-file", "", "File of the password by which the proxy that signs people in is known (HTTP Basic); empty: people sign in by `kubectl sandbox share`.")
	f.BoolVar(&o.Ribbon, "ribbon", false, "Lay a small ribbon, which can be dismissed, on pages, that names the sandbox. Pages with a Content-Security-Policy get none.")
	f.StringVar(&o.KeyHeader, "key-header", sandbox.DefaultHeader, "Request header that carries a routing key.")
	f.StringVar(&o.KeyMember, "key-member", sandbox.DefaultMember, "Member of baggage and tracestate that carries a routing key.")
	f.IntVar(&o.MaxConnections, "max-connections", 10000, "Client connections at once; further ones wait.")
	f.DurationVar(&o.IdleTimeout, "idle-timeout", 2*time.Minute, "How long a client connection may be idle.")
	f.DurationVar(&o.ShutdownDelay, "shutdown-delay", 5*time.Second, "How long to go on serving after SIGTERM, unready, until nobody sends requests here any more.")
	f.DurationVar(&o.DrainTime, "drain-time", 25*time.Second, "How long requests in flight may take after that.")
}

// Validate returns all errors of the gateway's options.
func (o *Options) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	host, ok := preview.ParseHost(o.Domain)
	check(ok && host.Name == o.Domain && !strings.Contains(o.Domain, ":"), "--domain: %q is no domain in lower case", o.Domain)
	for flag, address := range map[string]string{"address": o.Address, "admin-address": o.AdminAddress} {
		_, _, err := net.SplitHostPort(address)
		check(err == nil, "--%s: %q is not [HOST]:PORT", flag, address)
	}
	for flag, value := range map[string]string{"key-header": o.KeyHeader, "key-member": o.KeyMember} {
		check(value != "" && strings.Trim(value, "abcdefghijklmnopqrstuvwxyz0123456789-") == "",
			"--%s: %q must consist of lowercase letters, digits and '-'", flag, value)
	}
	check(o.MaxConnections > 0, "--max-connections: must be positive, is %d", o.MaxConnections)
	for flag, d := range map[string]time.Duration{"idle-timeout": o.IdleTimeout, "drain-time": o.DrainTime} {
		check(d > 0, "--%s: must be positive, is %s", flag, d)
	}
	check(o.ShutdownDelay >= 0, "--shutdown-delay: must not be negative, is %s", o.ShutdownDelay)
	return errors.Join(errs...)
}
