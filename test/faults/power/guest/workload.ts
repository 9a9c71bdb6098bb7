/** What a lane does in the guest. The module of each kind exports `openWorkload`. */
export interface Workload {
  /** How each chain stands, as `standingAt` words it. @throws Error for what is damaged */
  standing(): Promise<Readonly<Record<string, string>>>
  /** Writes an item; resolves when whoever wrote it says that it is durable. */
  write(chain: string, item: number): Promise<void>
}

/** Opens what is in a directory, after a power cut too, or makes it. */
export type OpenWorkload = (directory: string) => Promise<Workload>
