/** Xen Orchestra's NBD client, as far as tests use it; the package has no types of its own. */
declare module '@vates/nbd-client' {
  export default class NbdClient {
    constructor(settings: { readonly address: string; readonly port: number; readonly exportname: string })
    /** In bytes; known once connected. */
    readonly exportSize: bigint
    connect(): Promise<void>
    /** @param size of a block, in bytes */
    readBlock(index: number, size: number): Promise<Buffer>
    disconnect(): Promise<void>
  }
}
