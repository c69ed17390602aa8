package peers

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/troupe-dev/troupe/actors/peers/peerca"
	"github.com/troupe-dev/troupe/actors/relay"
)

// TestServiceIsTheOneInTheProto: the names written by hand are those that relay.proto declares.
func TestServiceIsTheOneInTheProto(t *testing.T) {
	service := relay.File_relay_proto.Services().ByName("Peers")
	if service == nil {
		t.Fatal("relay.proto has no service Peers")
	}
	stream := service.Methods().ByName(streamName)
	if string(service.FullName()) != serviceName || stream == nil || service.Methods().Len() != len(serviceDesc.Streams) {
		t.Fatalf("the service is %s with %d methods", service.FullName(), service.Methods().Len())
	}
	if !stream.IsStreamingClient() || !stream.IsStreamingServer() {
		t.Error("Stream does not stream both ways")
	}
	envelopes := stream.Input().Fields().ByName("envelopes")
	if envelopes == nil || envelopes.Number() != batchEnvelopes {
		t.Errorf("Stream takes %s, whose envelopes are %v", stream.Input().FullName(), envelopes)
	}
	if stream.Output().FullName() != (&relay.Welcome{}).ProtoReflect().Descriptor().FullName() {
		t.Errorf("Stream answers %s", stream.Output().FullName())
	}
}

// pod is a transport over loopback, and what it has delivered.
type pod struct {
	*Transport
	addr      string
	delivered chan *relay.Envelope
	connected chan string
}

// startPod starts a transport. change, if not nil, completes its configuration.
func startPod(t testing.TB, name string, change func(*Config)) *pod {
	t.Helper()
	l := listenLoopback(t)
	p := &pod{addr: l.Addr().String(), delivered: make(chan *relay.Envelope, 1<<16), connected: make(chan string, 1<<10)}
	cfg := Config{
		Pod: name, Listener: l, Metrics: NewMetrics(func(prometheus.Collector) {}),
		Deliver: func(e *relay.Envelope, held relay.Held) {
			if held != nil {
				held.Ref() // for ever
			}
			p.delivered <- e
		},
		Connected: func(pod string) { p.connected <- pod },
	}
	if change != nil {
		change(&cfg)
	}
	p.Transport = NewTransport(cfg)
	p.Start()
	t.Cleanup(p.Close)
	return p
}

// startSecure starts a transport with a certificate of ca.
func startSecure(t testing.TB, name string, ca *peerca.Authority, change func(*Config)) *pod {
	t.Helper()
	return startPod(t, name, func(c *Config) {
		f := sign(t, ca, CertName)
		security, err := NewTLS(f.Cert, f.Key, f.CA, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		c.TLS = security
		if change != nil {
			change(c)
		}
	})
}

// receives waits for an envelope.
func (p *pod) receives(t testing.TB) *relay.Envelope {
	t.Helper()
	select {
	case e := <-p.delivered:
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no envelope arrived")
		return nil
	}
}

func listenLoopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newAuthority(t testing.TB) *peerca.Authority {
	t.Helper()
	a, err := peerca.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func sign(t testing.TB, a *peerca.Authority, name string) peerca.Files {
	t.Helper()
	f, err := a.Sign(t.TempDir(), name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// certified returns credentials that present a certificate and accept any.
func certified(t testing.TB, f peerca.Files) credentials.TransportCredentials {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
	})
}

// value reads a counter.
func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue()
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// rawCodec sends a []byte as it is, so that a test can send what no peer would.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.([]byte); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}

// dial opens a stream of a method as a program of somebody else would. creds are nil for plain
// text.
func dial(t testing.TB, addr string, creds credentials.TransportCredentials, method string) (grpc.ClientStream, error) {
	t.Helper()
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return conn.NewStream(ctx, &serviceDesc.Streams[0], method)
}

// dialPod opens the stream that peers use, and takes the Welcome.
func dialPod(t testing.TB, addr string, creds credentials.TransportCredentials) (grpc.ClientStream, error) {
	t.Helper()
	stream, err := dial(t, addr, creds, "/"+serviceName+"/"+streamName)
	if err != nil {
		return nil, err
	}
	_, err = welcome(stream)
	return stream, err
}
