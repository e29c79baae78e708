// Package apps is the catalogue of third-party programs that tests, demo and benchmarks run on the cluster, each built from
// its own Go module and packed as an image of one static binary.
package apps

import (
	"fmt"
	"slices"
)

// A Program is a main package of somebody else's.
type Program struct {
	Name    string // of the binary, and of the image's repository
	Module  string // folder beside this file that pins the version
	Package string // import path
}

// An Image is a program under a tag, with what the image itself sets.
type Image struct {
	Ref        string
	Program    Program
	Entrypoint []string // after the binary: arguments that belong to the image
	Env        []string // NAME=VALUE
}

// Images that need no telling apart.
const (
	Hotrod      = "example.test/hotrod:1.76.0"         // Jaeger's demo of four services
	HotrodOld   = "example.test/hotrod:1.62.0"         // the same, an older release
	HotrodFast  = "example.test/hotrod:1.76.0-fast-db" // with HotROD's own fixes for its slow database
	Httpbin     = "example.test/httpbin:2.26.0"        // HTTP/1.1, WebSocket, SSE, trailers; does not drain
	GRPCServer  = "example.test/grpc-interop:1.85.0"   // every kind of stream
	NATS        = "example.test/nats:2.15.2"           // raw TCP where the server speaks first
	podinfoName = "example.test/podinfo"
)

// Releases is how many releases of podinfo there are.
const Releases = 22

// Podinfo returns the image of one release of podinfo, from 0 on: HTTP/1.1, h2c, gRPC and WebSocket, told apart by
// its message; drains.
func Podinfo(release int) string { return podinfoName + ":" + Release(release) }

// Release returns the tag of a release of podinfo, which is also its message.
func Release(release int) string { return fmt.Sprintf("r%d", release) }

// GRPCClient is the program that checks every kind of stream against GRPCServer. It runs beside the tests.
func GRPCClient() Program {
	return Program{"grpc-interop-client", "grpc", "google.golang.org/grpc/interop/client"}
}

// Catalogue returns every image.
func Catalogue() []Image {
	hotrod := Program{"hotrod", "hotrod", "github.com/jaegertracing/jaeger/examples/hotrod"}
	hotrodOld := Program{"hotrod-1.62", "hotrod-1.62", "github.com/jaegertracing/jaeger/examples/hotrod"}
	podinfo := Program{"podinfo", "podinfo", "github.com/stefanprodan/podinfo/cmd/podinfo"}
	images := []Image{
		{Ref: Hotrod, Program: hotrod},
		{Ref: HotrodOld, Program: hotrodOld},
		{Ref: HotrodFast, Program: hotrod, Entrypoint: []string{"--fix-db-query-delay=10ms", "--fix-disable-db-conn-mutex"}},
		{Ref: Httpbin, Program: Program{"httpbin", "httpbin", "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin"}},
		{Ref: GRPCServer, Program: Program{"grpc-interop-server", "grpc", "google.golang.org/grpc/interop/server"}},
		{Ref: NATS, Program: Program{"nats-server", "nats", "github.com/nats-io/nats-server/v2"}},
	}
	for r := range Releases {
		images = append(images, Image{Ref: Podinfo(r), Program: podinfo, Env: []string{"PODINFO_UI_MESSAGE=" + Release(r)}})
	}
	return images
}

// Only returns the images of the catalogue with the given references.
func Only(refs ...string) []Image {
	return slices.DeleteFunc(Catalogue(), func(i Image) bool { return !slices.Contains(refs, i.Ref) })
}
