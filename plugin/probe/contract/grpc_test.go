package contract

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A definition is gRPC's own interop test service, after a change.
type definition struct {
	services map[string]grpc.ServiceInfo
	files    *protoregistry.Files
}

func (d definition) GetServiceInfo() map[string]grpc.ServiceInfo { return d.services }

// define changes copies of the two files that define the service.
func define(t *testing.T, change func(service, messages *descriptorpb.FileDescriptorProto)) definition {
	t.Helper()
	service, messages := protodesc.ToFileDescriptorProto(testgrpc.File_grpc_testing_test_proto), protodesc.ToFileDescriptorProto(testgrpc.File_grpc_testing_messages_proto)
	change(service, messages)
	set := &descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{
		protodesc.ToFileDescriptorProto(testgrpc.File_grpc_testing_empty_proto), messages, service,
	}}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	d := definition{services: map[string]grpc.ServiceInfo{}, files: files}
	for _, s := range service.GetService() {
		d.services["grpc.testing."+s.GetName()] = grpc.ServiceInfo{}
	}
	return d
}

// byKey answers reflection by the key of a stream.
type byKey struct {
	reflectionpb.UnimplementedServerReflectionServer
	arms map[string]reflectionpb.ServerReflectionServer
}

func (b *byKey) ServerReflectionInfo(s reflectionpb.ServerReflection_ServerReflectionInfoServer) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	key := ""
	if v := md.Get(sandbox.DefaultHeader); len(v) > 0 {
		key = v[0]
		_ = s.SetHeader(metadata.Pairs(sandbox.HeaderServedBy, "pod-"+key))
	}
	return b.arms[key].ServerReflectionInfo(s)
}

func message(f *descriptorpb.FileDescriptorProto, name string) *descriptorpb.DescriptorProto {
	for _, m := range f.GetMessageType() {
		if m.GetName() == name {
			return m
		}
	}
	return nil
}

func field(m *descriptorpb.DescriptorProto, name string) *descriptorpb.FieldDescriptorProto {
	for _, f := range m.GetField() {
		if f.GetName() == name {
			return f
		}
	}
	return nil
}

func method(f *descriptorpb.FileDescriptorProto, name string) *descriptorpb.MethodDescriptorProto {
	for _, s := range f.GetService() {
		for _, m := range s.GetMethod() {
			if s.GetName() == "TestService" && m.GetName() == name {
				return m
			}
		}
	}
	return nil
}

func TestGRPC_NamesWhatEachVariantBreaks(t *testing.T) {
	type change = func(service, messages *descriptorpb.FileDescriptorProto)
	const unary = " grpc.testing.TestService/UnaryCall"
	tests := map[string]struct {
		change change
		want   []string
	}{
		"same": {func(_, _ *descriptorpb.FileDescriptorProto) {}, nil},
		"more": {func(service, messages *descriptorpb.FileDescriptorProto) {
			m := message(messages, "SimpleRequest")
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{Name: proto.String("extra"), Number: proto.Int32(900),
				Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()})
			service.Service[0].Method = append(service.Service[0].Method, &descriptorpb.MethodDescriptorProto{
				Name: proto.String("Extra"), InputType: proto.String(".grpc.testing.Empty"), OutputType: proto.String(".grpc.testing.Empty")})
		}, nil},
		"service": {func(service, _ *descriptorpb.FileDescriptorProto) {
			service.Service = slices.DeleteFunc(service.Service, func(s *descriptorpb.ServiceDescriptorProto) bool { return s.GetName() == "ReconnectService" })
		}, []string{"ServiceRemoved grpc.testing.ReconnectService"}},
		"method": {func(service, _ *descriptorpb.FileDescriptorProto) {
			s := service.Service[0]
			s.Method = slices.DeleteFunc(s.Method, func(m *descriptorpb.MethodDescriptorProto) bool { return m.GetName() == "EmptyCall" })
		}, []string{"MethodRemoved grpc.testing.TestService/EmptyCall"}},
		"streaming": {func(service, _ *descriptorpb.FileDescriptorProto) {
			method(service, "UnaryCall").ServerStreaming = proto.Bool(true)
		},
			[]string{"StreamingChanged" + unary}},
		"message": {func(service, _ *descriptorpb.FileDescriptorProto) {
			method(service, "EmptyCall").InputType = proto.String(".grpc.testing.SimpleRequest")
		}, []string{"MessageTypeChange grpc.testing.TestService/EmptyCall request"}},
		"field": {func(_, messages *descriptorpb.FileDescriptorProto) {
			m := message(messages, "SimpleResponse")
			m.Field = slices.DeleteFunc(m.Field, func(f *descriptorpb.FieldDescriptorProto) bool { return f.GetName() == "username" })
		}, []string{"FieldRemoved" + unary + " grpc.testing.SimpleResponse.username"}},
		"number": {func(_, messages *descriptorpb.FileDescriptorProto) {
			field(message(messages, "SimpleResponse"), "username").Number = proto.Int32(901)
		}, []string{"NumberChanged" + unary + " grpc.testing.SimpleResponse.username"}},
		"type": {func(_, messages *descriptorpb.FileDescriptorProto) {
			field(message(messages, "Payload"), "body").Type = descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()
		}, []string{"TypeChanged" + unary + " grpc.testing.Payload.body"}},
		"list": {func(_, messages *descriptorpb.FileDescriptorProto) {
			field(message(messages, "SimpleResponse"), "username").Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
		}, []string{"TypeChanged" + unary + " grpc.testing.SimpleResponse.username"}},
		"enum": {func(_, messages *descriptorpb.FileDescriptorProto) {
			for _, e := range messages.GetEnumType() {
				if e.GetName() == "GrpclbRouteType" {
					e.Value = e.Value[:2]
				}
			}
		}, []string{"EnumValueRemoved" + unary + " grpc.testing.GrpclbRouteType.GRPCLB_ROUTE_TYPE_BACKEND"}},
	}

	router := &byKey{arms: map[string]reflectionpb.ServerReflectionServer{}}
	same := define(t, func(_, _ *descriptorpb.FileDescriptorProto) {})
	router.arms[""] = reflection.NewServerV1(reflection.ServerOptions{Services: same, DescriptorResolver: same.files})
	g := GRPC{Version: "v1", Carriers: carriers(), Timeout: 20 * time.Second}
	for name, tt := range tests {
		d := define(t, tt.change)
		router.arms[name] = reflection.NewServerV1(reflection.ServerOptions{Services: d, DescriptorResolver: d.files})
		g.Variants = append(g.Variants, Arm{Name: name, Key: name})
	}
	g.Target = serve(t, func(s *grpc.Server) { reflectionpb.RegisterServerReflectionServer(s, router) })

	c, err := g.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	for name, tt := range tests {
		if got := of(c, name); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
	for i, a := range c.Arms[1:] {
		if pods := c.Operations[0].Seen[i+1].ServedBy; pods["pod-"+a.Name] == 0 || len(pods) != 1 {
			t.Errorf("%s was served by %v", a.Name, pods)
		}
	}
}

// gRPC's own server, with the reflection that it brings, by both its versions.
func TestGRPC_ReadsARealServer(t *testing.T) {
	target := serve(t, func(s *grpc.Server) {
		testgrpc.RegisterTestServiceServer(s, testgrpc.UnimplementedTestServiceServer{})
		reflection.Register(s)
	})
	g := GRPC{Target: target, Carriers: carriers(), Timeout: 20 * time.Second, Variants: []Arm{{"a", "a"}}}
	c, err := g.Run(t.Context())
	if err != nil || len(c.Findings) > 0 || c.Incomplete != "" {
		t.Fatalf("findings %v, incomplete %q, %v", c.Findings, c.Incomplete, err)
	}
	if len(c.Operations) != 8 || c.Operations[1].Name != "grpc.testing.TestService/EmptyCall" {
		t.Errorf("operations %v", c.Operations)
	}
}

func TestGRPC_SaysWhereThereIsNoReflection(t *testing.T) {
	g := GRPC{Carriers: carriers(), Timeout: 20 * time.Second, Variants: []Arm{{"a", "a"}}}
	g.Target = serve(t, func(s *grpc.Server) { testgrpc.RegisterTestServiceServer(s, testgrpc.UnimplementedTestServiceServer{}) })
	c, err := g.Run(t.Context())
	if got := of(c, result.NameBaseline); err != nil || !slices.Equal(got, []string{"DocumentUnusable"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

// A router answers in place of a fork with headers, and a status.
func TestGRPC_TellsARouterFromTheFork(t *testing.T) {
	g := GRPC{Carriers: carriers(), Timeout: 20 * time.Second, Variants: []Arm{{"a", "a"}}}
	refuse := func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if md, _ := metadata.FromIncomingContext(s.Context()); len(md.Get(sandbox.DefaultHeader)) > 0 {
			_ = s.SetHeader(metadata.Pairs(sandbox.HeaderError, "no pod is ready"))
			return status.Error(codes.Unavailable, "no pod is ready")
		}
		return next(srv, s)
	}
	g.Target = serve(t, func(s *grpc.Server) {
		testgrpc.RegisterTestServiceServer(s, testgrpc.UnimplementedTestServiceServer{})
		reflection.Register(s)
	}, grpc.StreamInterceptor(refuse))
	c, err := g.Run(t.Context())
	if got := of(c, "a"); err != nil || !slices.Equal(got, []string{"NotServed"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestGRPC_DoesNotWaitForever(t *testing.T) {
	var l net.ListenConfig
	listener, err := l.Listen(context.Background(), "tcp", "127.0.0.1:0") // which takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	g := GRPC{Target: listener.Addr().String(), Carriers: carriers(), Timeout: 200 * time.Millisecond, Variants: []Arm{{"a", "a"}}}
	c, err := g.Run(t.Context())
	if got := of(c, result.NameBaseline); err != nil || !slices.Equal(got, []string{"DocumentUnusable"}) {
		t.Errorf("got %q, %v", got, err)
	}
}

func serve(t *testing.T, register func(*grpc.Server), options ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}
