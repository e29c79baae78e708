package router

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const (
	// dialAgainMin and dialAgainMax bound the pause before an unreachable port is dialed again.
	dialAgainMin = 50 * time.Millisecond
	dialAgainMax = 2 * time.Second
	// maxDials bounds concurrent attempts to connect: for a router that starts, all forks of its table are new.
	maxDials = 32
)

// dials tries to connect to each pod of the table's forks, at the ports that requests would use, until it succeeds. No
// request reaches a pod that runs and accepts no connection. The result is meaningful because a baseline's own router
// dials, subject to the network policies of that router.
type dials struct {
	captures []sandbox.Capture
	own      string // the pod's own address; empty: unknown
	changed  chan struct{}
	reached  func(uid string, ok bool) // called with the result of each attempt
	slots    chan struct{}
	ctx      context.Context //nolint:containedctx // ends with the router, and all attempts with it
	stop     context.CancelFunc

	mu   sync.Mutex
	pods map[string]*dialed // by UID
}

// dialed is the result of connecting to a pod.
type dialed struct {
	pod    route.Pod
	cancel context.CancelFunc
	trying bool
	known  bool // an attempt has ended
	why    string
}

func newDials(captures []sandbox.Capture, own string) *dials {
	d := &dials{
		captures: captures, own: own, reached: func(string, bool) {}, changed: make(chan struct{}, 1), slots: make(chan struct{}, maxDials), pods: map[string]*dialed{},
	}
	d.ctx, d.stop = context.WithCancel(context.Background())
	return d
}

// follow starts to dial pods that are new in the table, and forgets those that the table no longer has.
func (d *dials) follow(t *route.Table) {
	if len(d.captures) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	have := make(map[string]struct{})
	for _, fork := range t.Routes {
		for _, pod := range fork.Pods {
			have[pod.UID] = struct{}{}
			old := d.pods[pod.UID]
			if old != nil && old.pod.IP == pod.IP && maps.Equal(old.pod.Ports, pod.Ports) {
				continue
			}
			if old != nil {
				old.cancel()
			}
			d.try(&dialed{pod: pod})
		}
	}
	for uid, p := range d.pods {
		if _, ok := have[uid]; !ok {
			p.cancel()
			delete(d.pods, uid)
		}
	}
}

// doubt dials the pods of a fork again, after a request reached none of them.
func (d *dials) doubt(fork *forkRoute) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, pod := range fork.fork.Pods {
		if p := d.pods[pod.UID]; p != nil && !p.trying {
			d.try(p)
		}
	}
}

// doubtPod dials a pod again, after a request did not reach it. False: the pod is unknown.
func (d *dials) doubtPod(uid string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pods[uid]
	if p != nil && !p.trying {
		d.try(p)
	}
	return p != nil
}

// try starts to dial a pod. The caller holds d.mu.
func (d *dials) try(p *dialed) {
	ctx, cancel := context.WithCancel(d.ctx)
	p.cancel, p.trying = cancel, true
	d.pods[p.pod.UID] = p
	go func() {
		defer cancel()
		for pause := dialAgainMin; ; pause = min(2*pause, dialAgainMax) {
			why := d.attempt(ctx, p.pod)
			if ctx.Err() != nil {
				return
			}
			d.ended(p, why)
			if why == "" {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
	}()
}

// ended records the result of an attempt.
func (d *dials) ended(p *dialed, why string) {
	d.mu.Lock()
	news := !p.known || p.why != why
	p.known, p.why = true, why
	p.trying = why != ""
	d.mu.Unlock()
	d.reached(p.pod.UID, why == "")
	if news {
		select {
		case d.changed <- struct{}{}:
		default: // a check is already pending
		}
	}
}

// news returns the results that said lacks, and adds them to it.
func (d *dials) news(said map[string]string) map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	news := map[string]string{}
	for uid, p := range d.pods {
		if was, ok := said[uid]; p.known && (!ok || was != p.why) {
			news[uid], said[uid] = p.why, p.why
		}
	}
	maps.DeleteFunc(said, func(uid, _ string) bool { return d.pods[uid] == nil })
	return news
}

// attempt connects to each captured port of the pod, and returns why it could not; empty if it could. It ignores a port
// on which the baseline's own app does not listen either, unless it is the only one.
func (d *dials) attempt(ctx context.Context, pod route.Pod) string {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		return ""
	}
	connected, failed := false, ""
	var unused []string
	for _, capture := range d.captures {
		port := capture.Number
		if p, ok := pod.Ports[capture.Name]; ok {
			port = p
		}
		err := dialPort(ctx, pod.IP, port)
		if err == nil {
			connected = true
			continue
		}
		why := fmt.Sprintf("port %s (%d): %s", capture.Name, port, plain(err))
		if d.unused(ctx, capture.Number) {
			unused = append(unused, why)
		} else if failed == "" {
			failed = why
		}
	}
	switch {
	case failed != "":
		return failed
	case !connected && len(unused) > 0:
		return unused[0]
	}
	return ""
}

// unused reports whether the baseline's own app does not listen on a port.
func (d *dials) unused(ctx context.Context, port uint16) bool {
	hosts := []string{"127.0.0.1"}
	if d.own != "" {
		hosts = append(hosts, d.own)
	}
	return !slices.ContainsFunc(hosts, func(host string) bool { return dialPort(ctx, host, port) == nil })
}

// dialPort opens a connection and closes it.
func dialPort(ctx context.Context, host string, port uint16) error {
	dialer := net.Dialer{Timeout: forkDialTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	return conn.Close()
}

// plain describes a dial error without addresses.
func plain(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused, nothing listens there"
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("no answer within %s", forkDialTimeout)
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to the pod"
	}
	return "connection failed"
}
