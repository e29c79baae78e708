package router

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A pod that does not listen is reported as such, and as reached once it does; one that left the table is not tried any
// more.
func TestDials_reportAPodOnceItListens(t *testing.T) {
	own, port := freePort(t), freePort(t)
	app, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", decimal(own)))
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	d := newDials([]sandbox.Capture{{Port: sandbox.Port{Name: "http", Number: own}, Listen: 1}}, "")
	defer d.stop()
	table := &route.Table{Routes: map[string]route.Fork{"k": {Name: "f", Pods: []route.Pod{{UID: "u", IP: "127.0.0.1", Ports: map[string]uint16{"http": port}}}}}}
	d.follow(table)
	said := map[string]string{}
	eventually(t, "the refusal is reported", func() bool {
		return strings.Contains(d.news(said)["u"], "port http ("+decimal(port)+"): connection refused")
	})

	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", decimal(port)))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is reported", func() bool { why, ok := d.news(said)["u"]; return ok && why == "" })

	// It stops listening, and a request finds that out.
	_ = l.Close()
	d.doubt(&forkRoute{fork: table.Routes["k"]})
	eventually(t, "the refusal is reported again", func() bool { return d.news(said)["u"] != "" })
	d.follow(&route.Table{})
	if d.mu.Lock(); len(d.pods) != 0 {
		t.Errorf("pods that left are kept: %v", d.pods)
	}
	d.mu.Unlock()
}

func decimal(n uint16) string { return strconv.Itoa(int(n)) }
