// Package apps is the catalogue of third-party programs that tests, demo and benchmarks run on the cluster, each built from
// its own Go module and packed as an image of one static binary.
package apps

import (
	"fmt"
	"slices"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/program"
)

// An Image is a binary under a tag, with what the image itself sets.
type Image struct {
	Ref     string
	Program program.Program // its folder beside this file pins the version
	Binary  string          // of the program
	Args    []string        // arguments that belong to the image: a pod's args come after them
	Env     []string        // NAME=VALUE
}

// Images that there is one of.
const (
	Hotrod      = "example.test/hotrod:1.76.0"         // Jaeger's demo of four services
	HotrodOld   = "example.test/hotrod:1.70.0"         // the same, an older release
	HotrodFast  = "example.test/hotrod:1.76.0-fast-db" // with HotROD's own fixes for its slow database
	HotrodMoved = "example.test/hotrod:1.76.0-moved"   // with all of its paths elsewhere: to its callers, broken
	HotrodEven  = "example.test/hotrod:1.76.0-even"    // with a database that takes 200 ms, however many ask it
	HotrodSlow  = "example.test/hotrod:1.76.0-slow"    // the same, 80 ms slower
	Caddy       = "example.test/caddy:2.11.9"          // a proxy that fails requests, or answers in a program's place
	K6          = "example.test/k6:1.8.1"              // load tests written in JavaScript
	Podcli      = "example.test/podcli:6.9.2"          // podinfo's own client: exits with 1 where a URL does not answer well
	Httpbin     = "example.test/httpbin:2.26.0"        // HTTP/1.1, WebSocket, SSE, trailers; does not drain
	GRPC        = "example.test/grpc-interop:1.85.0"   // every kind of stream
	NATS        = "example.test/nats:2.15.2"           // raw TCP where the server speaks first
	OAuth2Proxy = "example.test/oauth2-proxy:7.15.6"   // signs people in
)

// Releases is how many releases of podinfo there are.
const Releases = 22

// Podinfo returns the image of one release of podinfo, from 0 on: HTTP/1.1, h2c, gRPC and WebSocket; it tells its release as
// its message; it drains.
func Podinfo(release int) string { return "example.test/podinfo:" + Release(release) }

// Release returns the tag of a release of podinfo, which is also its message.
func Release(release int) string { return fmt.Sprintf("r%d", release) }

// GRPCClient is the binary of the program "grpc" that checks every kind of stream against the image GRPC. It runs beside the
// tests.
const GRPCClient = "grpc-interop-client"

// Interop is the program of the image GRPC and of GRPCClient.
func Interop() program.Program {
	return program.Program{Name: "grpc", Binaries: []program.Binary{
		{Name: "grpc-interop-server", Package: "google.golang.org/grpc/interop/server"},
		{Name: GRPCClient, Package: "google.golang.org/grpc/interop/client"},
	}}
}

// Catalogue returns every image.
func Catalogue() []Image {
	one := func(folder, binary, pkg string) program.Program {
		return program.Program{Name: folder, Binaries: []program.Binary{{Name: binary, Package: pkg}}}
	}
	hotrod := one("hotrod", "hotrod", "github.com/jaegertracing/jaeger/examples/hotrod")
	images := []Image{
		{Ref: Hotrod, Program: hotrod},
		{Ref: HotrodFast, Program: hotrod, Args: []string{"--fix-db-query-delay=10ms", "--fix-disable-db-conn-mutex"}},
		{Ref: HotrodMoved, Program: hotrod, Args: []string{"--basepath=/moved"}},
		{Ref: HotrodEven, Program: hotrod, Args: []string{"--fix-db-query-delay=200ms", "--fix-disable-db-conn-mutex"}},
		{Ref: HotrodSlow, Program: hotrod, Args: []string{"--fix-db-query-delay=280ms", "--fix-disable-db-conn-mutex"}},
		{Ref: Caddy, Program: one("caddy", "caddy", "github.com/caddyserver/caddy/v2/cmd/caddy")},
		{Ref: K6, Program: one("k6", "k6", "go.k6.io/k6")},
		{Ref: HotrodOld, Program: one("hotrod-1.70", "hotrod", "github.com/jaegertracing/jaeger/examples/hotrod")},
		{Ref: Podcli, Program: one("podcli", "podcli", "github.com/stefanprodan/podinfo/cmd/podcli")},
		{Ref: Httpbin, Program: one("httpbin", "go-httpbin", "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin")},
		{Ref: GRPC, Program: Interop()},
		{Ref: OAuth2Proxy, Program: one("oauth2-proxy", "oauth2-proxy", "github.com/oauth2-proxy/oauth2-proxy/v7")},
		{Ref: NATS, Program: one("nats", "nats-server", "github.com/nats-io/nats-server/v2")},
	}
	podinfo := one("podinfo", "podinfo", "github.com/stefanprodan/podinfo/cmd/podinfo")
	for r := range Releases {
		images = append(images, Image{Ref: Podinfo(r), Program: podinfo, Env: []string{"PODINFO_UI_MESSAGE=" + Release(r)}})
	}
	for i := range images {
		images[i].Binary = images[i].Program.Binaries[0].Name
	}
	return images
}

// Only returns the images of the catalogue with the given references, in the catalogue's order.
func Only(refs ...string) []Image {
	return slices.DeleteFunc(Catalogue(), func(i Image) bool { return !slices.Contains(refs, i.Ref) })
}
