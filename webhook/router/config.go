// Package router is the data plane: the sidecar that routes each request with a sandbox's key to the sandbox's fork,
// and all others to the app beside it. In forks and checks it stamps the key on outgoing requests instead. The engine
// forwards the bytes.
package router

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Defaults of what the environment omits.
const (
	DefaultStaleAfter = 15 * time.Minute
	DefaultFirstWait  = 5 * time.Second
)

// Config is the configuration of a router.
type Config struct {
	Version string // of the router's build

	Captures []sandbox.Capture // ports in front of the app
	Carriers route.Carriers    // of keys

	Outgoing netip.AddrPort // where the stamping proxy listens, on loopback; zero: nowhere
	Key      string         // to stamp

	Forwards []sandbox.Forward // loopback ports that stand in for Services, and stamp the key
	Report   string            // file to which a route.Sent is written at the end; empty: none

	Admin string // address of metrics and health; empty: none

	Control     []string // HOST:PORT of the route stream, tried in turn; empty: no stream
	ControlName string   // TLS server name of the route stream
	CA          []byte   // PEM bundle that verifies its certificate
	TokenFile   string   // read for each connection
	StateDir    string   // directory of the last table; empty: it is not stored

	StaleAfter time.Duration // age at which an unconfirmed table is no longer used
	FirstWait  time.Duration // how long the pod's start waits for the first table

	PodName string
	PodIP   string
}

// ConfigFromEnv reads a Config from the environment that admission sets in the router's container. Its error names all
// invalid variables, and why they are invalid.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	c := Config{
		Key: getenv(sandbox.EnvKey), Admin: getenv(sandbox.EnvRouterAdmin),
		ControlName: getenv(sandbox.EnvRouterControlName), CA: []byte(getenv(sandbox.EnvRouterCA)),
		TokenFile: getenv(sandbox.EnvRouterToken), StateDir: getenv(sandbox.EnvRouterState),
		PodName: getenv(sandbox.EnvRouterPodName), PodIP: getenv(sandbox.EnvRouterPodIP),
		Carriers: route.Carriers{Header: sandbox.DefaultHeader, Member: sandbox.DefaultMember},
	}
	var errs []error
	check := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("environment variable %s: %w", name, err))
		}
	}
	var err error
	c.Captures, err = sandbox.ParseCaptures(getenv(sandbox.EnvRouterPorts))
	check(sandbox.EnvRouterPorts, err)
	c.Outgoing, err = parseOutgoing(getenv(sandbox.EnvRouterOutgoing))
	check(sandbox.EnvRouterOutgoing, err)
	c.Forwards, err = sandbox.ParseForwards(getenv(sandbox.EnvRouterForwards))
	check(sandbox.EnvRouterForwards, err)
	c.Report = getenv(sandbox.EnvRouterReport)
	if c.Outgoing.IsValid() || len(c.Forwards) > 0 {
		check(sandbox.EnvKey, sandbox.ValidateKey(c.Key))
	}
	if c.Admin != "" {
		check(sandbox.EnvRouterAdmin, validAddress(c.Admin))
	}
	c.Control, err = parseControl(getenv(sandbox.EnvRouterControl))
	check(sandbox.EnvRouterControl, err)
	if v := getenv(sandbox.EnvRouterHeader); v != "" {
		c.Carriers.Header = strings.ToLower(v)
	}
	check(sandbox.EnvRouterHeader, validToken(c.Carriers.Header))
	if v := getenv(sandbox.EnvRouterMember); v != "" {
		c.Carriers.Member = v
	}
	check(sandbox.EnvRouterMember, validToken(c.Carriers.Member))
	c.StaleAfter, err = parseDuration(getenv(sandbox.EnvRouterStaleAfter), DefaultStaleAfter)
	check(sandbox.EnvRouterStaleAfter, err)
	c.FirstWait, err = parseDuration(getenv(sandbox.EnvRouterFirstWait), DefaultFirstWait)
	check(sandbox.EnvRouterFirstWait, err)
	if len(c.Control) > 0 {
		check(sandbox.EnvRouterControlName, required(c.ControlName))
		check(sandbox.EnvRouterToken, required(c.TokenFile))
		if !x509.NewCertPool().AppendCertsFromPEM(c.CA) {
			check(sandbox.EnvRouterCA, errors.New("has no PEM certificate"))
		}
	}
	if len(c.Captures) > 0 {
		check(sandbox.EnvRouterPodName, required(c.PodName))
	}
	return c, errors.Join(errs...)
}

func parseOutgoing(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return netip.AddrPort{}, err
	case !a.Addr().IsLoopback(): // whoever reaches the proxy sends requests with the sandbox's key
		return netip.AddrPort{}, fmt.Errorf("%s is not a loopback address", a.Addr())
	}
	return a, nil
}

func parseControl(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	all := strings.Split(s, ",")
	for _, a := range all {
		if err := validAddress(a); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func validAddress(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q is not a port number", port)
	}
	return nil
}

func parseDuration(s string, def time.Duration) (time.Duration, error) {
	if s == "" {
		return def, nil
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = fmt.Errorf("%s is negative", s)
	}
	return d, err
}

func required(s string) error {
	if s == "" {
		return errors.New("must be set")
	}
	return nil
}

// validToken checks that a name is valid for a header field: RFC 9110, section 5.6.2.
func validToken(s string) error {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return fmt.Errorf("%q is not a token of HTTP", s)
		}
	}
	return required(s)
}
