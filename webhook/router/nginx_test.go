package router

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startNginx runs nginx with a cache keyed by the URL alone in front of upstream, and returns its address. more are
// directives of the location.
func startNginx(t *testing.T, upstream, more string) string {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal("nginx is not installed: `make nginx` installs it")
	}
	dir, addr := t.TempDir(), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 64; }
http {
	access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/temp; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	proxy_cache_path %[1]s/cache keys_zone=c:1m;
	server {
		listen %[2]s;
		location / {
			proxy_pass http://%[3]s; proxy_http_version 1.1; proxy_set_header Connection "";
			proxy_cache c; proxy_cache_key $uri; proxy_cache_valid any 10m;
			add_header X-Cache $upstream_cache_status always;
			%[4]s
		}
	}
}`, dir, addr, upstream, more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-c", config, "-p", dir, "-e", filepath.Join(dir, "error.log"))
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, "nginx listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

// A shared cache in front of a router serves no answer to a keyed request to anybody else, and baseline's answers stay
// as cacheable as they were: the cache is nginx's, keyed by the URL alone, as it comes and told to heed no
// Cache-Control.
func TestRouter_no_shared_cache_serves_a_fork_s_answer_to_others(t *testing.T) {
	for kind, directives := range map[string]string{
		"as it comes": "", "told to ignore Cache-Control": "proxy_ignore_headers Cache-Control Expires;",
	} {
		t.Run(kind, func(t *testing.T) {
			u := startRouter(t, testConfig(t))
			serve := func(name string) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Cache-Control", "public, max-age=600")
					if r.URL.Path == "/accel" {
						w.Header().Set("X-Accel-Expires", "600")
					}
					fmt.Fprintln(w, name)
				})
			}
			startPod(t, "baseline", "127.0.0.1", u.app, serve("baseline"))
			startPod(t, "fork", "127.0.0.3", u.app, serve("fork"))
			u.setTable(table(1, map[string][]string{"k": {"127.0.0.3"}, "unready": nil}))
			cache := "http://" + startNginx(t, u.addr, directives)
			client := newClient(t, nil)
			for _, path := range []string{"/plain", "/accel"} {
				for carrier, value := range map[string]string{"X-Sandbox-Key": "k", "Baggage": "sandbox-key=k", "Tracestate": "sandbox-key=k"} {
					url := cache + path + "-" + strings.ToLower(carrier)
					if path == "/accel" {
						url = cache + path + "?" // one entry for all
					}
					if a, body := ask(t, client, url, carrier, value); path == "/plain" && body != "fork" {
						t.Errorf("%s: with the key: got %q %v", url, body, a.Header)
					}
					for turn, want := range []string{"", "HIT"} {
						answer, body := ask(t, client, url)
						if body != "baseline" || want != "" && answer.Header.Get("X-Cache") != want {
							t.Errorf("%s: without the key, request %d: got %q, cache %s", url, turn, body, answer.Header.Get("X-Cache"))
						}
						if bytes.Contains([]byte(fmt.Sprint(answer.Header)), []byte("sandbox")) {
							t.Errorf("%s: an unkeyed answer was changed: %v", url, answer.Header)
						}
					}
				}
			}
			if answer, _ := ask(t, client, cache+"/unready", "X-Sandbox-Key", "unready"); answer.StatusCode != 503 {
				t.Errorf("fork that is not ready: got %s", answer.Status)
			}
			if answer, body := ask(t, client, cache+"/unready"); body != "baseline" {
				t.Errorf("after a 503 of the router's: got %s %q", answer.Status, body)
			}
		})
	}
}

// What the documentation has an administrator of a cache configure: keyed requests pass it.
func TestRouter_a_cache_told_to_let_keyed_requests_pass_serves_them_by_the_fork(t *testing.T) {
	u := startRouter(t, testConfig(t))
	for name, ip := range map[string]string{"baseline": "127.0.0.1", "fork": "127.0.0.3"} {
		startPod(t, name, ip, u.app, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=600")
			fmt.Fprintln(w, name)
		}))
	}
	u.setTable(table(1, map[string][]string{"k": {"127.0.0.3"}}))
	client := newClient(t, nil)
	bypassed := "http://" + startNginx(t, u.addr, "proxy_cache_bypass $http_x_sandbox_key; proxy_no_cache $http_x_sandbox_key;")
	for range 2 {
		if _, body := ask(t, client, bypassed); body != "baseline" {
			t.Errorf("without a key: got %q", body)
		}
		if _, body := ask(t, client, bypassed, "X-Sandbox-Key", "k"); body != "fork" {
			t.Errorf("with the key: got %q", body)
		}
	}
}
