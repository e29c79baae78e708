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

// waitInterval is short because the app's start waits for it.
const waitInterval = 5 * time.Millisecond

// Wait returns when the router with this admin address reports that it is ready. It runs in the router's container, as
// postStart hook, and so delays the app's start. A startup probe would take until its next period, and the kubelet
// another second to act on it.
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
	// Not cancelled by ctx: the content of the last response is needed, and the client's timeout bounds it.
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
