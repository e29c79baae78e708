package router

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// startForward runs a router as in a check's pod, with a forward to localhost:port, and returns the forward's URL.
func startForward(t *testing.T, port uint16) (string, *routerUnderTest) {
	t.Helper()
	c := testConfig(t)
	c.Captures, c.Key = nil, "the-key"
	c.Forwards = []sandbox.Forward{{Service: sandbox.Service{Host: "localhost", Port: port}, Listen: freePort(t)}}
	c.Report = filepath.Join(t.TempDir(), "report")
	u := startRouter(t, c)
	return fmt.Sprintf("http://127.0.0.1:%d", c.Forwards[0].Listen), u
}

func TestForward_reaches_the_Service_with_the_key_and_its_own_name(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		port := freePort(t)
		startPod(t, "service", "127.0.0.1", port, http.HandlerFunc(showKeys))
		url, _ := startForward(t, port)
		client := newClient(t, protocols)
		host := fmt.Sprintf("localhost:%d", port)
		if protocols.UnencryptedHTTP2() {
			host = strings.TrimPrefix(url, "http://")
		}
		if _, body := ask(t, client, url+"/a?b"); !strings.HasPrefix(body, "GET "+host+"/a?b key=the-key baggage=sandbox-key=the-key") {
			t.Errorf("got %q", body)
		}
		if _, body := ask(t, client, url+"/", "X-Sandbox-Key", "mine"); !strings.Contains(body, "key=mine baggage=sandbox-key=mine ") {
			t.Errorf("got %q", body)
		}
	})
}

func TestForward_keeps_redirects_to_the_Service_here(t *testing.T) {
	port := freePort(t)
	startPod(t, "service", "127.0.0.1", port, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	}))
	url, _ := startForward(t, port)
	client := newClient(t, nil)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for to, want := range map[string]string{
		fmt.Sprintf("http://localhost:%d/x?y", port): url + "/x?y",
		"/x":                "/x",
		"http://elsewhere/": "http://elsewhere/",
		fmt.Sprintf("https://localhost:%d/x", port): fmt.Sprintf("https://localhost:%d/x", port),
	} {
		if a, _ := ask(t, client, url+"/?to="+strings.ReplaceAll(to, "?", "%3F")); a.Header.Get("Location") != want {
			t.Errorf("%s became %q, want %q", to, a.Header.Get("Location"), want)
		}
	}
}

func TestForward_reports_what_was_sent(t *testing.T) {
	port := freePort(t)
	pod := startPod(t, "service", "127.0.0.1", port, nil)
	url, u := startForward(t, port)
	client := newClient(t, nil)
	for range 3 {
		ask(t, client, url)
	}
	ask(t, client, url, "Baggage", "sandbox-key=other")
	client.CloseIdleConnections()
	_ = pod.srv.Close()
	eventually(t, "nothing listens any more", func() bool {
		c, err := net.Dial("tcp", pod.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	if a, _ := ask(t, client, url); a.StatusCode != http.StatusBadGateway {
		t.Errorf("got %s", a.Status)
	}
	u.stop()
	b, err := os.ReadFile(u.config.Report)
	if err != nil {
		t.Fatal(err)
	}
	var got route.Sent
	if err := json.Unmarshal(b, &got); err != nil || got != (route.Sent{Begun: 5, Answered: 4, Refused: 1, OtherKeys: 1}) {
		t.Errorf("reported %s (%v)", b, err)
	}
}
