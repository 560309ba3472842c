import { useQuery } from "@tanstack/react-query";
import { Link, NavLink, Outlet, useLocation } from "react-router";
import { visitorQuery } from "../api/account";
import { DropLayer } from "../uploads/DropLayer";
import { Boundary } from "./Boundary";
import { Mark, Person } from "./icons";

/** What every page has: the way around above, the page, the foot. */
export function Layout() {
  const { pathname } = useLocation();
  const user = useQuery({ ...visitorQuery, enabled: false }).data?.user ?? null;
  return (
    <>
      <a className="skip" href="#main">
        Skip to content
      </a>
      <header className="top">
        <Link className="brand" to="/">
          <Mark /> <span className="brand-name">quartapp</span>
        </Link>
        {user && (
          <nav aria-label="Main">
            <NavLink to="/" end>
              Recordings
            </NavLink>
            {user.role !== "patient" && <NavLink to="/patients">Patients</NavLink>}
            <NavLink className="who" to="/account" title={user.email}>
              <Person />
              <span className="unseen">Account of </span>
              <span className="who-email">{user.email}</span>
            </NavLink>
          </nav>
        )}
      </header>
      <main id="main" tabIndex={-1}>
        <Boundary at={pathname}>
          <Outlet />
        </Boundary>
      </main>
      <footer>
        <a href="/docs">API</a>
      </footer>
      {user && <DropLayer />}
    </>
  );
}
