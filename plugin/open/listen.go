package open

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/proxy"
)

// Listen listens on a port of each address; port 0 means any port that is free on all. It skips an address that this
// machine does not have if another one works.
func Listen(ctx context.Context, addresses []netip.Addr, port uint16) ([]net.Listener, uint16, error) {
	const tries = 10 // for a port that is free on all
	var lc net.ListenConfig
	for try := 1; ; try++ {
		var listeners []net.Listener
		var failed, lacking error
		number := port
		for _, a := range addresses {
			l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(a.String(), strconv.Itoa(int(number))))
			switch {
			case err == nil:
				listeners = append(listeners, l)
				if addr, ok := l.Addr().(*net.TCPAddr); ok {
					number = addr.AddrPort().Port()
				}
			case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
				lacking = err
			default:
				failed = err
			}
		}
		if failed == nil && len(listeners) > 0 {
			return listeners, number, nil
		}
		for _, l := range listeners {
			_ = l.Close()
		}
		if failed == nil {
			return nil, 0, lacking
		}
		if port != 0 || try == tries || !errors.Is(failed, syscall.EADDRINUSE) {
			return nil, 0, failed
		}
	}
}

// drainTime is how long requests in flight may take when the proxy ends.
const drainTime = 500 * time.Millisecond

// Serve serves until ctx ends, and gives requests in flight a moment to finish.
func (p *Proxy) Serve(ctx context.Context, listeners []net.Listener) {
	e := proxy.New(engine.Options{})
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var pool sync.WaitGroup
	for _, l := range listeners {
		pool.Go(func() { _ = e.Serve(serving, l, func(net.Conn) engine.Decider { return p }) })
	}
	<-ctx.Done()
	for _, l := range listeners {
		_ = l.Close()
	}
	draining, cancel := context.WithTimeout(serving, drainTime)
	defer cancel()
	e.Drain(draining)
	stop()
	pool.Wait()
}

// Resolves reports whether this machine's resolver resolves a preview's host name, to this machine.
func (p *Proxy) Resolves(ctx context.Context, sandbox string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", sandbox+"."+domain)
	for _, a := range addresses {
		if !a.IsLoopback() {
			return false
		}
	}
	return err == nil && len(addresses) > 0
}

// ParseAddresses reads where to listen: "localhost" for this machine only, or an IP address.
func ParseAddresses(s string) ([]netip.Addr, error) {
	if s == domain {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return nil, fmt.Errorf("%q is neither %q nor an IP address", s, domain)
	}
	return []netip.Addr{a}, nil
}
