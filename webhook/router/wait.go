package router

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// waitInterval is short: the app's start waits for it.
const waitInterval = 5 * time.Millisecond

// Wait returns when the router whose admin address this is says that it is ready, from inside its own container. It is what
// holds up the app's start, as postStart hook: a startup probe is not looked at before its next tick, and the kubelet
// takes another second to act on it.
func Wait(ctx context.Context, admin string) error {
	_, port, err := net.SplitHostPort(admin)
	if err != nil {
		return fmt.Errorf("address %q of the router: %w", admin, err)
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		why := ready(ctx, client, "http://127.0.0.1:"+port+"/ready")
		if why == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("router is not ready: %w", why)
		case <-time.After(waitInterval):
		}
	}
}

func ready(ctx context.Context, client *http.Client, url string) error {
	// Not ended by ctx: of the last answer, what it says is wanted, and the client bounds it.
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(body)))
	}
	return nil
}
