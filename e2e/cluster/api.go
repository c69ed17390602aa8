package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// apiPoll is between two looks at an object that is not ready.
const apiPoll = 100 * time.Millisecond

// client speaks to the API server as admin. A few requests do not need more
// than this, and a program without client-go starts and links in a fraction of
// the time.
func (c *Cluster) client() (*http.Client, error) {
	data, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		return nil, err
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				CA string `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert string `json:"client-certificate-data"`
				Key  string `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Kubeconfig(), err)
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 {
		return nil, fmt.Errorf("%s is not the one that Up wrote", c.Kubeconfig())
	}
	var decoded [3][]byte
	user := config.Users[0].User
	for i, text := range []string{config.Clusters[0].Cluster.CA, user.Cert, user.Key} {
		if decoded[i], err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, fmt.Errorf("%s: %w", c.Kubeconfig(), err)
		}
	}
	cert, err := tls.X509KeyPair(decoded[1], decoded[2])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(decoded[0])
	return &http.Client{
		Transport: &http.Transport{
			DialContext:       c.DialContext,
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		},
		Timeout: 10 * time.Second,
	}, nil
}

// errNotFound is the API server's answer to a request for what does not exist,
// or not yet.
var errNotFound = errors.New("not found")

// request makes one request. A body is a merge patch. into may be nil.
func (c *Cluster) request(ctx context.Context, method, path, body string, into any) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+APIServer+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/merge-patch+json")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%s: %w", path, errNotFound)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, data)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(data, into)
}

// conditions is the part of an object that says what it is waiting for.
type conditions struct {
	Status struct {
		Conditions []struct {
			Type, Status, Reason, Message string
		}
	}
}

// awaitCondition waits until a condition of the object at path is True.
func (c *Cluster) awaitCondition(ctx context.Context, path, condition string) error {
	for {
		var o conditions
		err := c.request(ctx, http.MethodGet, path, "", &o)
		if err == nil {
			err = o.isTrue(condition)
		}
		if err == nil {
			return nil
		}
		if ended := pause(ctx, apiPoll); ended != nil {
			return fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// isTrue returns an error that says why a condition is not True.
func (o *conditions) isTrue(condition string) error {
	for _, got := range o.Status.Conditions {
		switch {
		case got.Type != condition:
		case got.Status == "True":
			return nil
		default:
			return fmt.Errorf("%s is %s: %s: %s", condition, got.Status, got.Reason, got.Message)
		}
	}
	return fmt.Errorf("condition %s is missing", condition)
}
