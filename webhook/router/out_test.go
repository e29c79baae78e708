package router

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A pod that a request could not connect to comes last for all further requests, whatever tables come, until it can be
// connected to again; which is tried without them.
func TestRoutes_leaveAPodOutThatTakesNoConnection(t *testing.T) {
	captures := []sandbox.Capture{{Port: sandbox.Port{Name: "http", Number: freePort(t)}, Listen: 1}}
	app, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", decimal(captures[0].Number)))
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	hole := freePort(t)
	table := &route.Table{Routes: map[string]route.Fork{"k": {Name: "f", Pods: []route.Pod{
		{UID: "well", IP: "127.0.0.1"}, {UID: "hole", IP: "127.0.0.1", Ports: map[string]uint16{"http": hole}},
	}}}}
	r, d := newRoutes(captures, 0), newDials(captures, "")
	defer d.stop()
	r.doubtPod, d.reached = d.doubtPod, r.reached
	first := func() map[string]int {
		n := map[string]int{}
		for range 10 {
			pods := r.force.Load().routes["k"].pods("http")
			if len(pods) != 2 {
				t.Fatalf("got %d pods", len(pods))
			}
			n[pods[0].ID]++
		}
		return n
	}
	r.replace(table, time.Now())
	if got := first(); len(got) != 2 {
		t.Fatalf("not both are tried first: %v", got)
	}
	holeID := "hole@" + net.JoinHostPort("127.0.0.1", decimal(hole))
	for _, b := range r.force.Load().routes["k"].pods("http") {
		if b.ID == holeID {
			b.Dialed(errors.New("timeout"))
		}
	}
	if got := first(); len(got) != 2 {
		t.Errorf("a pod is left out that nobody tries again: %v", got)
	}
	d.follow(table)
	eventually(t, "it is left out", func() bool { return len(first()) == 1 && first()[holeID] == 0 })
	r.replace(table, time.Now())
	if got := first(); len(got) != 1 {
		t.Errorf("it is tried first again with another table: %v", got)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", decimal(hole)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", func() bool { return len(first()) == 2 })
	_ = l.Close()
	for _, b := range r.force.Load().routes["k"].pods("http") {
		if b.ID == holeID {
			b.Dialed(errors.New("timeout"))
		}
	}
	if got := first(); len(got) != 1 || got[holeID] != 0 {
		t.Errorf("it is tried first after a request failed: %v", got)
	}
}
