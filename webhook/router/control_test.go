package router

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

const controlName = "sandbox-webhook.test.svc"

// authority signs certificates.
type authority struct {
	pem  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: rand.Text()}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert, key}
}

func (a *authority) leaf(t testing.TB) tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{controlName}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

// plane is a control plane whose streams a test plays by hand.
type plane struct {
	t       testing.TB
	ca      *authority
	addr    string
	srv     *httptest.Server
	streams chan *planeStream
	answer  func(http.ResponseWriter, *http.Request) bool // answers otherwise
	keeps   bool                                          // does not say that it has taken final counts
}

type planeStream struct {
	p      *plane
	bearer string
	in     chan *route.ToControl
	out    chan any
	over   chan struct{}
	hello  *route.Hello
}

func startPlane(t testing.TB, ca *authority) *plane {
	t.Helper()
	p := &plane{t: t, ca: ca, streams: make(chan *planeStream, 10)}
	p.srv = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.srv.EnableHTTP2 = true
	p.srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.leaf(t)}}
	p.srv.StartTLS()
	p.addr = p.srv.Listener.Addr().String()
	t.Cleanup(p.stop)
	return p
}

func (p *plane) stop() {
	_ = p.srv.Listener.Close()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		p.srv.Close()
	}()
	for {
		p.srv.CloseClientConnections() // the ones that came meanwhile too
		select {
		case <-closed:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *plane) serve(w http.ResponseWriter, r *http.Request) {
	if p.answer != nil && p.answer(w, r) {
		return
	}
	if r.URL.Path != route.StreamPath || r.Method != http.MethodPost || r.ProtoMajor != 2 {
		http.Error(w, "no", http.StatusBadRequest)
		return
	}
	s := &planeStream{
		p: p, bearer: r.Header.Get("Authorization"), in: make(chan *route.ToControl, 100), out: make(chan any),
		over: make(chan struct{}),
	}
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	go func() {
		defer close(s.over)
		frames := route.NewReader(r.Body)
		for {
			f, err := frames.ToControl()
			if err != nil {
				return
			}
			s.in <- f
			if f.Counts != nil && f.Counts.Final && !p.keeps {
				s.out <- route.ToRouter{Taken: &route.Taken{}}
			}
		}
	}()
	p.streams <- s
	for {
		select {
		case <-s.over:
			return
		case f := <-s.out:
			if f == nil {
				return
			}
			_ = route.Write(w, f)
			_ = http.NewResponseController(w).Flush()
		}
	}
}

// stream waits for the router's next stream, and its Hello.
func (p *plane) stream() *planeStream {
	p.t.Helper()
	select {
	case s := <-p.streams:
		s.hello = s.next().Hello
		if s.hello == nil {
			p.t.Fatal("the first frame is no Hello")
		}
		return s
	case <-time.After(patience):
		p.t.Fatal("no stream was opened")
		return nil
	}
}

func (s *planeStream) next() *route.ToControl {
	s.p.t.Helper()
	select {
	case f := <-s.in:
		return f
	case <-s.over:
		s.p.t.Fatal("the stream has ended")
	case <-time.After(patience):
		s.p.t.Fatal("no frame came")
	}
	return nil
}

func (s *planeStream) send(f route.ToRouter) {
	s.p.t.Helper()
	select {
	case s.out <- f:
	case <-s.over:
		s.p.t.Fatal("the stream has ended")
	}
}

// ack waits for an acknowledgement.
func (s *planeStream) ack() route.Version {
	s.p.t.Helper()
	for {
		if f := s.next(); f.Ack != nil {
			return *f.Ack
		}
	}
}

func (s *planeStream) counts(nonce string) map[string]route.Count {
	s.p.t.Helper()
	for {
		if f := s.next(); f.Counts != nil && f.Counts.Nonce == nonce {
			return f.Counts.Keys
		}
	}
}

// ended waits until the router has given the stream up.
func (s *planeStream) ended() {
	s.p.t.Helper()
	select {
	case <-s.over:
	case <-time.After(patience):
		s.p.t.Fatal("the stream goes on")
	}
}

// controlled is a configuration with a control plane.
func controlled(t testing.TB, planes ...*plane) Config {
	c := testConfig(t)
	c.ControlName = controlName
	for _, p := range planes {
		c.Control = append(c.Control, p.addr)
		c.CA = append(c.CA, p.ca.pem...)
	}
	c.TokenFile = filepath.Join(t.TempDir(), "token")
	writeToken(t, c.TokenFile, time.Hour)
	return c
}

func writeToken(t testing.TB, file string, life time.Duration) {
	t.Helper()
	claims := fmt.Sprintf(`{"exp":%d}`, time.Now().Add(life).Unix())
	token := "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestControl_tables_come_are_in_force_and_then_acknowledged(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	c := controlled(t, p)
	c.Version = "v1.2.3"
	u := startRouter(t, c)
	startPod(t, "app", "127.0.0.1", u.app, nil)
	startPod(t, "a", "127.0.0.2", u.app, nil)
	startPod(t, "b", "127.0.0.3", u.app, nil)
	s := p.stream()
	if h := s.hello; h.Build != "v1.2.3" || h.Start == "" || h.Have != (route.Version{}) || len(h.CA) != 64 {
		t.Errorf("hello %+v", h)
	}
	if token, _ := os.ReadFile(c.TokenFile); s.bearer != "Bearer "+strings.TrimSpace(string(token)) {
		t.Errorf("authorization %q", s.bearer)
	}
	s.send(route.ToRouter{Snapshot: table(1, map[string][]string{"a": {"127.0.0.2"}})})
	if v := s.ack(); v != (route.Version{Term: 1, Counter: 1}) {
		t.Errorf("acknowledged %v", v)
	}
	client := newClient(t, nil)
	for i := range 50 {
		from, to := route.Version{Term: 1, Counter: uint64(i + 1)}, route.Version{Term: 1, Counter: uint64(i + 2)}
		ip, want := "127.0.0.2", "a"
		if i%2 == 0 {
			ip, want = "127.0.0.3", "b"
		}
		s.send(route.ToRouter{Delta: &route.Delta{Base: from, Version: to, Set: table(0, map[string][]string{"k": {ip}}).Routes}})
		if v := s.ack(); v != to {
			t.Fatalf("acknowledged %v, want %v", v, to)
		}
		if _, body := ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "k"); body != want {
			t.Fatalf("version %v was acknowledged, and the request reached %q", to, body)
		}
	}
	s.send(route.ToRouter{Report: &route.Report{Nonce: "n"}})
	if got := s.counts("n"); got["k"] != (route.Count{Fork: 50}) || len(got) != 1 {
		t.Errorf("counts %v", got)
	}
	s.send(route.ToRouter{Delta: &route.Delta{
		Base: route.Version{Term: 1, Counter: 51}, Version: route.Version{Term: 1, Counter: 52}, Remove: []string{"k"},
	}})
	s.ack()
	if _, body := ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "k"); body != "app" {
		t.Errorf("reached %q", body)
	}
}

func TestControl_counts_are_sent_as_they_change(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	u := startRouter(t, controlled(t, p))
	startPod(t, "app", "127.0.0.1", u.app, nil)
	startPod(t, "fork", "127.0.0.2", u.app, nil)
	s := p.stream()
	s.send(route.ToRouter{Snapshot: table(1, map[string][]string{"k": {"127.0.0.2"}})})
	s.ack()
	ask(t, newClient(t, nil), "http://"+u.addr, "X-Sandbox-Key", "k")
	if got := s.counts(""); len(got) == 0 {
		got = s.counts("")
		if got["k"].Fork != 1 {
			t.Errorf("counts %v", got)
		}
	}
}

func TestControl_what_does_not_fit_ends_the_stream_and_a_snapshot_mends_it(t *testing.T) {
	v := func(term int64, counter uint64) route.Version { return route.Version{Term: term, Counter: counter} }
	p := startPlane(t, newAuthority(t))
	u := startRouter(t, controlled(t, p))
	s := p.stream()
	s.send(route.ToRouter{Snapshot: table(5, nil)})
	s.ack()
	for name, f := range map[string]route.ToRouter{
		"delta on another base": {Delta: &route.Delta{Base: v(1, 4), Version: v(1, 6)}},
		"delta backwards":       {Delta: &route.Delta{Base: v(1, 5), Version: v(1, 5)}},
		"older snapshot":        {Snapshot: table(4, nil)},
		"no address":            {Snapshot: table2(v(1, 9), "x")},
		"two fields":            {Snapshot: table(9, nil), Ping: &route.Ping{}},
		"authorities of none":   {Trust: &route.Trust{CA: "x"}},
	} {
		s.send(f)
		s.ended()
		if have, _ := u.routes.have(); have != v(1, 5) {
			t.Errorf("%s: %v is in force", name, have)
		}
		s = p.stream()
		if s.hello.Have != v(1, 5) {
			t.Errorf("%s: hello %+v", name, s.hello)
		}
		s.send(route.ToRouter{Snapshot: table(5, nil)}) // the same again is acknowledged again
		if got := s.ack(); got != v(1, 5) {
			t.Errorf("%s: acknowledged %v", name, got)
		}
	}
	s.send(route.ToRouter{Snapshot: &route.Table{Version: v(2, 1)}}) // a new lease holder counts from the start
	if got := s.ack(); got != v(2, 1) {
		t.Errorf("acknowledged %v", got)
	}
}

func table2(v route.Version, ip string) *route.Table {
	return &route.Table{Version: v, Routes: map[string]route.Fork{"k": {Pods: []route.Pod{{IP: ip}}}}}
}

func TestControl_a_delta_needs_a_snapshot_on_the_same_stream(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	u := startRouter(t, controlled(t, p))
	s := p.stream()
	s.send(route.ToRouter{Snapshot: table(5, nil)})
	s.ack()
	s.out <- nil // the control plane ends it
	s = p.stream()
	s.send(route.ToRouter{Delta: &route.Delta{Base: route.Version{Term: 1, Counter: 5}, Version: route.Version{Term: 1, Counter: 6}}})
	s.ended()
	if have, _ := u.routes.have(); have.Counter != 5 {
		t.Errorf("%v is in force", have)
	}
}

func TestControl_follows_to_the_lease_holder_and_tries_the_next_address(t *testing.T) {
	ca := newAuthority(t)
	leader, follower, none := startPlane(t, ca), startPlane(t, ca), startPlane(t, ca)
	follower.answer = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "https://"+leader.addr+route.StreamPath, http.StatusTemporaryRedirect)
		return true
	}
	none.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "there is no leader yet", http.StatusServiceUnavailable)
		return true
	}
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	c := controlled(t, none, follower)
	c.Control = append([]string{dead.Addr().String()}, c.Control...)
	u := startRouter(t, c)
	s := leader.stream()
	s.send(route.ToRouter{Snapshot: table(1, nil)})
	s.ack()
	if log := u.log.String(); !strings.Contains(log, "connection refused") || !strings.Contains(log, "there is no leader yet") {
		t.Errorf("log: %s", log)
	}
	if !u.control.connected.Load() {
		t.Error("not connected")
	}
}

func TestControl_trusts_nobody_else(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	c := controlled(t, p)
	c.CA = newAuthority(t).pem
	u := startRouter(t, c)
	eventually(t, "the certificate is refused", func() bool { return strings.Contains(u.log.String(), "certificate signed by unknown authority") })
	c = controlled(t, p)
	c.ControlName = "another.test.svc"
	u = startRouter(t, c)
	eventually(t, "the name is refused", func() bool { return strings.Contains(u.log.String(), "not another.test.svc") })
}

func TestControl_trusts_new_authorities_from_the_next_connection_on(t *testing.T) {
	before, after := newAuthority(t), newAuthority(t)
	old, renewed := startPlane(t, before), startPlane(t, after)
	c := controlled(t, old)
	c.Control = append(c.Control, renewed.addr)
	u := startRouter(t, c)
	s := old.stream()
	s.send(route.ToRouter{Trust: &route.Trust{CA: string(before.pem) + string(after.pem)}})
	s.send(route.ToRouter{Snapshot: table(1, nil)})
	s.ack()
	hello := s.hello.CA
	old.stop()
	s = renewed.stream()
	if s.hello.CA == hello {
		t.Error("says that it trusts the old ones only")
	}
	u.stop()
	c.Control = c.Control[1:]
	startRouter(t, c) // and after a restart
	renewed.stream()
}

func TestControl_tables_and_counts_outlive_the_control_plane(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	u := startRouter(t, controlled(t, p))
	startPod(t, "app", "127.0.0.1", u.app, nil)
	startPod(t, "fork", "127.0.0.2", u.app, nil)
	s := p.stream()
	s.send(route.ToRouter{Snapshot: table(1, map[string][]string{"k": {"127.0.0.2"}})})
	s.ack()
	p.stop()
	eventually(t, "it is noticed", func() bool { return !u.control.connected.Load() })
	if _, body := ask(t, newClient(t, nil), "http://"+u.addr, "X-Sandbox-Key", "k"); body != "fork" {
		t.Errorf("got %q", body)
	}
}

func TestControl_a_ping_confirms_the_table(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	u := startRouter(t, controlled(t, p))
	s := p.stream()
	s.send(route.ToRouter{Snapshot: table(1, nil)})
	s.ack()
	u.routes.confirm(time.Now().Add(-time.Hour))
	s.send(route.ToRouter{Ping: &route.Ping{}})
	eventually(t, "the table is fresh again", func() bool { return u.routes.age() < time.Minute })
}

func TestControl_connects_anew_before_its_token_expires(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	c := controlled(t, p)
	writeToken(t, c.TokenFile, 3*time.Second)
	startRouter(t, c)
	s := p.stream()
	writeToken(t, c.TokenFile, time.Hour)
	s.ended()
	if next := p.stream(); next.bearer == s.bearer {
		t.Error("the old token was used again")
	}
}

func TestRenewIn(t *testing.T) {
	now := time.Now()
	token := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
	}
	for in, want := range map[string]time.Duration{
		token(fmt.Sprintf(`{"exp":%d}`, now.Unix()+3600)): 48 * time.Minute,
		token(fmt.Sprintf(`{"exp":%d}`, now.Unix()-3600)): time.Second,
		token(`{}`): 0, token(`x`): 0, "x": 0, "a.b.c": 0,
	} {
		if got := renewIn(in, now); (got - want).Abs() > 2*time.Second {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

func TestRouter_is_ready_with_its_first_table_or_after_a_while(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	c := controlled(t, p)
	c.Admin = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c.FirstWait = time.Hour
	startRouter(t, c)
	ready := func() int {
		resp, _ := ask(t, newClient(t, nil), "http://"+c.Admin+"/ready")
		return resp.StatusCode
	}
	s := p.stream()
	if got := ready(); got != 503 {
		t.Errorf("got %d before the first table", got)
	}
	s.send(route.ToRouter{Snapshot: table(1, nil)})
	s.ack()
	eventually(t, "it is ready", func() bool { return ready() == 200 })

	c = controlled(t)
	c.Control = []string{"127.0.0.1:1"}
	c.Admin = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	c.FirstWait = 300 * time.Millisecond
	startRouter(t, c)
	if got := ready(); got != 503 {
		t.Errorf("got %d at once", got)
	}
	eventually(t, "it is ready", func() bool { return ready() == 200 })
}

// What was counted last, while requests in flight ended, reaches the control plane before the router ends.
func TestControl_last_counts_are_handed_over(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	p.keeps = true
	u := startRouter(t, controlled(t, p))
	s := p.stream()
	startPod(t, "baseline", "127.0.0.1", u.app, nil)
	answer := make(chan struct{})
	asked := make(chan struct{})
	startPod(t, "fork", "127.0.0.3", u.app, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-answer
	}))
	s.send(route.ToRouter{Snapshot: table(1, map[string][]string{"k": {"127.0.0.3"}})})
	s.ack()
	client := newClient(t, nil)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "k")
	}()
	<-asked
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		u.stop()
	}()
	eventually(t, "the router drains", func() bool { return strings.Contains(u.log.String(), "draining") })
	close(answer)
	<-answered
	for {
		f := s.next()
		if f.Counts == nil || !f.Counts.Final {
			continue
		}
		if got := f.Counts.Keys["k"].Fork; got != 1 {
			t.Errorf("final counts have %d requests, want 1", got)
		}
		break
	}
	select {
	case <-ended:
		t.Error("the router ended before its counts were taken")
	case <-time.After(50 * time.Millisecond):
	}
	s.send(route.ToRouter{Taken: &route.Taken{}})
	<-ended
	if strings.Contains(u.log.String(), "did not take") {
		t.Error(u.log.String())
	}
}

// A control plane that does not take them keeps no router from ending.
func TestControl_last_counts_are_not_waited_for_for_ever(t *testing.T) {
	p := startPlane(t, newAuthority(t))
	p.keeps = true
	u := startRouter(t, controlled(t, p))
	p.stream()
	u.stop()
	if !strings.Contains(u.log.String(), "did not take the last counts") {
		t.Error(u.log.String())
	}
}
