import { infiniteQueryOptions } from "@tanstack/react-query";
import { answered, api, type Schemas } from "./client";

export type Patient = Schemas["PatientBody"];

export const patientsQuery = infiniteQueryOptions({
  queryKey: ["patients"],
  queryFn: ({ pageParam }) => getPatients(pageParam),
  initialPageParam: null as string | null,
  getNextPageParam: ({ next_cursor }) => next_cursor,
});

function getPatients(cursor: string | null) {
  const query = { limit: 500, ...(cursor && { cursor }) };
  return answered(api.GET("/api/v1/patients", { params: { query } }));
}
