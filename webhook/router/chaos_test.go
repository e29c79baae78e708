package router

import (
	"bytes"
	"context"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Whatever breaks, and whenever: an answer that arrives whole is the one to its own request, by whom its key asks for.
func TestRouter_under_chaos_no_answer_goes_astray_and_nothing_is_left(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("chaos", func(t *testing.T) { eachProtocol(t, chaos) })
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before+2 })
}

func chaos(t *testing.T, protocols *http.Protocols) {
	u := startRouter(t, testConfig(t))
	unruly := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			dice := mathrand.N(100)
			if dice < 3 { // no answer
				panic(http.ErrAbortHandler)
			}
			if dice < 6 { // an early one
				fmt.Fprintf(w, "%s %s early", name, r.URL.Path)
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			if dice < 10 {
				w.Header().Set("Connection", "close")
			}
			fmt.Fprintf(w, "%s %s ", name, r.URL.Path)
			if dice < 13 { // half of one
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
			if dice < 30 {
				_ = http.NewResponseController(w).Flush()
			}
			_, _ = w.Write(body)
		})
	}
	startPod(t, "app", "127.0.0.1", u.app, unruly("app"))
	startPod(t, "a", "127.0.0.2", u.app, unruly("a"))
	startPod(t, "b", "127.0.0.3", u.app, unruly("b"))
	tab := table(1, map[string][]string{"a": {"127.0.0.2"}, "b": {"127.0.0.9", "127.0.0.3"}, "none": nil})
	u.setTable(tab)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	enough := time.Now().Add(2 * time.Second) // and, on a machine that is slow, until a whole answer came of each
	var pool sync.WaitGroup
	pool.Go(func() {
		for n := uint64(2); ctx.Err() == nil; n++ {
			next := *tab
			next.Version.Counter = n
			u.setTable(&next)
			time.Sleep(5 * time.Millisecond)
		}
	})
	var whole sync.Map
	for range 4 { // connections
		client := newClient(t, protocols)
		for worker := range 4 {
			pool.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					key := []string{"", "a", "b", "none", "other"}[mathrand.N(5)]
					want := map[string]string{"a": "a", "b": "b"}[key]
					if want == "" {
						want = "app"
					}
					body := bytes.Repeat([]byte{byte('A' + mathrand.N(26))}, mathrand.N(100_000))
					path := fmt.Sprintf("/%d/%d", worker, i)
					status, got := unrulyAsk(ctx, client, "http://"+u.addr+path, key, body)
					switch {
					case status == 0, status == 503 && strings.HasPrefix(got, "fork "):
					case status == 200 && key != "none" && (got == want+" "+path+" "+string(body) || got == want+" "+path+" early"):
						whole.Store(want, true)
						if time.Now().After(enough) && isWhole(&whole, "app", "a", "b") {
							stop()
						}
					default:
						t.Errorf("key %q: got %d %.80q", key, status, got)
					}
				}
			})
		}
	}
	pool.Wait()
	if !isWhole(&whole, "app", "a", "b") {
		t.Error("within a minute no whole answer came of some of them")
	}
}

func isWhole(whole *sync.Map, names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		_, ok := whole.Load(name)
		return !ok
	})
}

// unrulyAsk returns status 0 when no whole answer came, as when it did not wait for one.
func unrulyAsk(ctx context.Context, client *http.Client, url, key string, body []byte) (int, string) {
	if mathrand.N(20) == 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, mathrand.N(3*time.Millisecond))
		defer cancel()
	}
	method := []string{http.MethodGet, http.MethodPost, http.MethodPut}[mathrand.N(3)]
	var r io.Reader
	if method != http.MethodGet {
		if r = bytes.NewReader(body); mathrand.N(2) == 0 {
			r = struct{ io.Reader }{r} // chunked
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, r)
	if err != nil {
		return 0, ""
	}
	if key != "" {
		req.Header.Set("X-Sandbox-Key", key)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	if method == http.MethodGet && resp.StatusCode == http.StatusOK && !strings.HasSuffix(string(got), "early") {
		return resp.StatusCode, string(got) + string(body)
	}
	return resp.StatusCode, string(got)
}
