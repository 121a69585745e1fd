// Command bench measures lb beside nginx and HAProxy: CPU per request, requests per second, latency and memory per
// idle connection. Every proxy runs on the same single core and is loaded in turn; the generator and the origin run on
// the other cores. README.md says how to run it and how to read its tables.
//
// The command starts itself again, in processes of their own, as origin and as load generator: what they cost must
// neither be charged to a proxy nor disturb the one that takes the figures.
package main
