/** One way to reach a volume, as SMAPIv3's `Datapath.attach` names it. */
export type Implementation = readonly ['Nbd', { readonly uri: string }]

/**
 * The plain NBD frontend: the client connects to the volume's unix socket by itself, as qemu and the kernel's
 * nbd-client do. Clients take the URI apart at its colons, so neither part may contain one.
 */
export function plainNbd(socket: string, exportName: string): Implementation {
  return ['Nbd', { uri: `nbd:unix:${socket}:exportname=${exportName}` }]
}
