package peers

import (
	"context"

	"google.golang.org/grpc"

	"github.com/troupe-dev/troupe/actors/relay"
)

// The service Peers of relay.proto is written by hand. The code that protoc-gen-go-grpc generates
// would make package relay import gRPC, and takes a *relay.Batch where the stream's own batches
// avoid a copy (see codec.go). TestServiceIsTheOneInTheProto compares the names with the
// descriptor.
const (
	serviceName = "troupe.relay.v1.Peers"
	streamName  = "Stream"
)

// handler serves the streams of other pods.
type handler interface {
	stream(grpc.ServerStream) error
}

var serviceDesc = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*handler)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: streamName,
		Handler: func(srv any, stream grpc.ServerStream) error {
			return srv.(handler).stream(stream) //nolint:errcheck // gRPC has checked the type, see HandlerType
		},
		ServerStreams: true, ClientStreams: true,
	}},
	Metadata: "relay.proto",
}

// openStream calls Stream of the pod at the other end of conn.
func openStream(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	return conn.NewStream(ctx, &serviceDesc.Streams[0], "/"+serviceName+"/"+streamName)
}

// welcome waits for the first message of a stream and returns the name of the pod that serves it.
func welcome(stream grpc.ClientStream) (pod string, err error) {
	w := new(relay.Welcome)
	if err := stream.RecvMsg(w); err != nil {
		return "", err
	}
	return w.GetPod(), nil
}
